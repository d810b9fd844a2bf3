use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use port17::bootstrap::{Bootstrap, BootstrapError, BootstrapHandle, Fetched, Known, Schedule, SourceState};
use port17::fetcher::Fetcher;
use port17::list_file;
use port17::network_file::{NetworkFile, Source};
use port17_proto::crypto::{Entropy, Secret, SigningKey};
use port17_proto::network::{Definition, ListContent, Roots, SignedList};
use port17_proto::params::Params;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::server::{Ca, Server, Stream, Validity};

/// So short that a test sees many rounds, with a refresh that never comes by itself.
const QUICK: Schedule = Schedule {
    first_wait: Duration::from_millis(200),
    retry_min: Duration::from_millis(10),
    retry_max: Duration::from_millis(40),
    file_retry: Duration::from_millis(10),
    refresh: Duration::from_secs(3600),
};

fn root(seed: u8) -> SigningKey {
    SigningKey::from_seed(Secret::new([seed; 32]))
}

fn network(name: &str, sources: &[String]) -> NetworkFile {
    let definition = Definition::new(name, Roots::new(1, vec![root(1).public()]).unwrap()).unwrap();
    let parsed = sources.iter().map(|text| Source::parse(text, std::path::Path::new("/")).unwrap()).collect();
    NetworkFile { definition, sources: parsed, ca_pem: None, danger_http: true, params: Params::DEFAULT }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn list(definition: &Definition, seq: u64, signer: u8, issued_s: u64) -> SignedList {
    let content = ListContent {
        network: definition.id(),
        seq,
        issued_s,
        expires_s: issued_s + 86_400,
        random: [7; 32],
        nodes: Vec::new(),
        params: Params::DEFAULT,
        roots: None,
        releases: Vec::new(),
        unknown: Default::default(),
    };
    let mut list = SignedList::new(content.encode().unwrap());
    list.sign(&root(signer));
    list
}

fn json(network: &NetworkFile, seq: u64) -> String {
    list_file::to_json(&list(&network.definition, seq, 1, now_s()))
}

/// A web server whose answer a test changes at any time; none: 404.
async fn web(answer: Option<String>) -> (Server, Arc<Mutex<Option<String>>>) {
    let shared = Arc::new(Mutex::new(answer));
    let current = Arc::clone(&shared);
    let server = Server::start(None, move |stream| {
        let answer = current.lock().unwrap().clone();
        answer_with(stream, answer)
    })
    .await;
    (server, shared)
}

async fn answer_with(mut stream: Stream, answer: Option<String>) {
    let text = match answer {
        Some(body) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn address(server: &Server) -> String {
    format!("http://{}/bootstrap-nodes.json", server.address)
}

/// A running bootstrap.
struct Running {
    handle: BootstrapHandle,
    lists: mpsc::Receiver<Fetched>,
    task: tokio::task::JoinHandle<()>,
}

fn start(file: &NetworkFile, known: Known) -> Running {
    start_with(Fetcher::new(None).unwrap(), file, known)
}

fn start_with(fetcher: Fetcher, file: &NetworkFile, known: Known) -> Running {
    let bootstrap = Bootstrap::under(QUICK, fetcher, file, known, Entropy::from_number(17));
    let (sender, lists) = mpsc::channel(4);
    Running { handle: bootstrap.handle(), lists, task: tokio::spawn(bootstrap.run(sender)) }
}

impl Running {
    /// The seq of the next list.
    async fn next(&mut self) -> u64 {
        let fetched = tokio::time::timeout(Duration::from_secs(5), self.lists.recv()).await.expect("a list comes").unwrap();
        SignedList::decode(&fetched.bytes).unwrap().read_unverified().unwrap().seq
    }

    async fn until(&self, holds: impl Fn(&[SourceState]) -> bool) -> Vec<SourceState> {
        for _ in 0..500 {
            let sources = self.handle.sources();
            if holds(&sources) {
                return sources;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {:?}", self.handle.sources());
    }
}

fn problem(sources: &[SourceState]) -> &str {
    sources[0].last.as_ref().and_then(|last| last.problem.as_deref()).unwrap_or_default()
}

#[tokio::test]
async fn all_sources_are_asked_and_each_of_their_lists_is_handed_over() {
    let (five, _) = web(Some(json(&network("three", &[]), 5))).await;
    let (seven, _) = web(Some(json(&network("three", &[]), 7))).await;
    let (missing, _) = web(None).await;
    let sources: Vec<String> = [&five, &missing, &seven].map(address).into();
    let mut running = start(&network("three", &sources), Known::default());

    let mut seqs = [running.next().await, running.next().await];
    seqs.sort_unstable();
    assert_eq!(seqs, [5, 7]);
    let states = running.until(|sources| sources.iter().all(|source| source.last.is_some())).await;
    assert_eq!(states[1].last.as_ref().unwrap().problem.as_deref(), Some("answers 404 Not Found"));
    assert_eq!(states[1].source, address(&missing));
    assert_eq!(states[2].last.as_ref().unwrap().seq, Some(7));
}

#[tokio::test]
async fn the_public_networks_address_is_asked_by_its_very_name() {
    let ca = Ca::new();
    let mut file = network("public", &["https://bootstrap.safing.io/bootstrap-nodes.json".into()]);
    file.ca_pem = Some(ca.pem());
    let body = json(&file, 3);
    let tls = ca.acceptor("bootstrap.safing.io", Validity::Now);
    let server = Server::start(Some(tls), move |stream| answer_with(stream, Some(body.clone()))).await;
    let mut fetcher = Fetcher::new(file.ca_certificates().as_deref()).unwrap();
    fetcher.resolve_to("bootstrap.safing.io", server.address);
    assert_eq!(start_with(fetcher, &file, Known::default()).next().await, 3);
}

#[tokio::test]
async fn a_file_is_looked_at_until_it_is_there_and_whole() {
    let root = tempfile::tempdir().unwrap();
    let path: PathBuf = root.path().join("bootstrap-nodes.json");
    let file = network("three", &[path.display().to_string()]);
    let mut running = start(&file, Known::default());
    running.until(|sources| problem(sources).contains("no such file")).await;
    let text = json(&file, 4);
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    running.until(|sources| problem(sources).contains("only a part was downloaded")).await;
    std::fs::write(&path, &text).unwrap();
    assert_eq!(running.next().await, 4);
}

#[tokio::test]
async fn lists_that_do_not_verify_are_named_and_never_handed_over() {
    let (server, answer) = web(None).await;
    let file = network("three", &[address(&server)]);
    let mut running = start(&file, Known::default());
    let text = |definition: &Definition, signer, issued_s| list_file::to_json(&list(definition, 1, signer, issued_s));
    for (body, named) in [
        (text(&network("other", &[]).definition, 1, now_s()), "for another network"),
        (text(&file.definition, 9, now_s()), "0 of the 1 signatures"),
        (text(&file.definition, 1, now_s() - 2 * 86_400), "expired"),
        (text(&file.definition, 1, now_s() + 30 * 86_400), "in the future"),
        ("<html>".into(), "not a signed list in JSON"),
    ] {
        *answer.lock().unwrap() = Some(body);
        running.until(|sources| problem(sources).contains(named)).await;
    }
    assert!(running.lists.try_recv().is_err());
}

#[tokio::test]
async fn a_list_in_force_ends_the_asking_and_its_end_begins_it_again() {
    let (server, answer) = web(None).await;
    let file = network("three", &[address(&server)]);
    let mut running = start(&file, Known::default());
    running.until(|_| server.requests() > 3).await;

    running.handle.list_in_force(Some(4));
    let state = running.until(|sources| sources[0].next_in_s.is_some_and(|next_s| next_s > 60)).await;
    // ± 20 % of an hour.
    assert!((2879..=4320).contains(&state[0].next_in_s.unwrap()), "{state:?}");
    let asked = server.requests();

    *answer.lock().unwrap() = Some(json(&file, 5));
    running.handle.fetch_now();
    assert_eq!(running.next().await, 5);
    assert_eq!(server.requests(), asked + 1, "once, on demand");

    *answer.lock().unwrap() = None;
    running.handle.list_in_force(Some(5));
    running.handle.fetch_now();
    // What failed is asked again sooner: a 24th of the hour, ± 20 %.
    let soon = |source: &port17::bootstrap::SourceState| source.next_in_s.is_some_and(|next_s| (119..=180).contains(&next_s));
    running.until(|sources| server.requests() == asked + 2 && soon(&sources[0])).await;

    running.handle.list_in_force(None);
    running.until(|_| server.requests() > asked + 4).await;
}

#[tokio::test]
async fn known_nodes_come_before_mirrors() {
    let file = network("three", &[]);
    let (server, _) = web(Some(json(&file, 5))).await;
    let file = network("three", &[address(&server)]);
    let started = Instant::now();
    let mut running = start(&file, Known { list: Some(4), nodes: true });
    assert_eq!(running.next().await, 5);
    assert!(started.elapsed() >= QUICK.first_wait);

    let running = start(&file, Known { list: Some(4), nodes: true });
    running.handle.list_in_force(Some(5));
    running.until(|sources| sources[0].next_in_s.is_some_and(|next_s| next_s > 60)).await;
    assert_eq!(server.requests(), 1, "a list that came over a link in the meantime spares the mirror");
}

#[tokio::test]
async fn who_asks_during_an_answer_gets_a_later_one() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let server = Server::start(None, move |stream| {
        let gate = Arc::clone(&opened);
        async move {
            gate.acquire().await.unwrap().forget();
            answer_with(stream, None).await;
        }
    })
    .await;
    let running = start(&network("three", &[address(&server)]), Known { list: Some(4), nodes: false });
    running.until(|_| server.requests() == 1).await;
    running.handle.fetch_now();
    gate.add_permits(2);
    running.until(|sources| server.requests() == 2 && sources[0].next_in_s.is_some_and(|next_s| next_s > 60)).await;
}

#[tokio::test]
async fn a_reload_takes_new_sources_and_refuses_another_network() {
    let (old, _) = web(None).await;
    let (new, _) = web(Some(json(&network("three", &[]), 6))).await;
    let mut running = start(&network("three", &[address(&old)]), Known::default());
    running.until(|sources| sources[0].last.is_some()).await;

    let refused = running.handle.replace(&network("other", &[address(&new)]));
    assert!(matches!(refused, Err(BootstrapError::OtherNetwork)));
    assert_eq!(running.handle.sources()[0].source, address(&old));
    running.handle.replace(&network("three", &[address(&old), address(&new)])).unwrap();
    assert_eq!(running.next().await, 6);
    let sources = running.handle.sources();
    assert_eq!(sources.len(), 2);
    assert!(sources[0].last.is_some(), "what is known of a source that stays, stays");
}

#[tokio::test]
async fn it_ends_when_nobody_takes_lists() {
    let Running { lists, task, .. } = start(&network("three", &[]), Known::default());
    drop(lists);
    tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
}
