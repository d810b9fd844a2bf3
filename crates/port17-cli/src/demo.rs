//! `port17 demo`: a whole mesh on this machine, an origin, and a download through it.

mod child;
mod content;
mod download;
mod mesh;
mod network;
mod origin;
mod plan;
mod ports;
mod progress;
mod ready;
mod stop;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use clap::CommandFactory;
use clap::error::ErrorKind;
use port17::control::{self, Status};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::Instant;

use self::content::{Content, hex, sha256};
use self::download::{Download, DownloadError, Request};
use self::mesh::{Event, Mesh};
use self::plan::{Member, ORIGIN_NAME, Plan};
use self::ports::Ports;
use self::progress::Progress;
use self::ready::{Ready, ReadyFile};
use self::stop::Stop;
use crate::arguments::{Arguments, DemoArguments};
use crate::failure::{Failure, Kind};
use crate::output::{Output, write_out};
use crate::status::counted;

/// What the demo downloads.
const PATH: &str = "/100m.bin";
const BYTES: usize = 100_000_000;
/// Mesh and download together, with `--check`: less than the minute it promises, since all must end in order as well.
const CHECK_DEADLINE: Duration = Duration::from_secs(55);
/// The same for who only looks.
const DEADLINE: Duration = Duration::from_secs(600);
/// How often the client is asked what it waits for, and a refused download is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// Runs a whole mesh on this machine and downloads through it.
pub(crate) async fn run(arguments: DemoArguments, output: Output) -> Result<(), Failure> {
    check(&arguments)?;
    let mut stop = Stop::listen()?;
    let deadline = Instant::now() + if arguments.check { CHECK_DEADLINE } else { DEADLINE };
    let ready_file = arguments.ready_file.as_deref().map(|path| {
        ReadyFile::prepare(path).map_err(|error| Failure::system(format_args!("cannot write {}", path.display()), &error))
    });
    let ready_file = ready_file.transpose()?;
    let mut ports = Ports::new();
    let plan = Plan::make(arguments.nodes, arguments.hops, &mut ports)?;
    let content = Content::new();
    let listener = TcpListener::bind(plan.origin).await.map_err(|error| Failure::system(plan.origin, &error))?;
    tokio::spawn(origin::serve(listener, content.clone()));
    let mut mesh = start(&plan, arguments.processes)?;
    let mut show = Show { plan: &plan, output, ready_file, processes: BTreeMap::new(), formed: None, is_ready: false };
    let result = tokio::select! {
        result = show.run(&mut mesh, &content, deadline, arguments.check) => result,
        ended = stop.wait() => ended.after(show.is_ready),
    };
    mesh.stop().await;
    result.and(plan.remove())
}

fn check(arguments: &DemoArguments) -> Result<(), Failure> {
    let DemoArguments { nodes, hops, .. } = arguments;
    if hops > nodes {
        let problem = format!("{hops} hops need as many nodes: --nodes {nodes} is too few for --hops {hops}");
        let error = Arguments::command().error(ErrorKind::ValueValidation, problem);
        return Err(Failure::new(Kind::Usage, error.render().to_string().trim_start_matches("error: ")));
    }
    if *hops < 3 {
        eprintln!("port17: {hops} of at least 3 hops: for measuring only; such a route hides little");
    }
    Ok(())
}

fn start(plan: &Plan, processes: bool) -> Result<Mesh, Failure> {
    if !processes {
        return Ok(Mesh::in_this_process(plan));
    }
    let binary = std::env::current_exe().map_err(|error| Failure::system("cannot find this program's file", &error))?;
    Ok(Mesh::in_processes(plan, &binary))
}

/// What is shown, and what is known for it.
struct Show<'a> {
    plan: &'a Plan,
    output: Output,
    ready_file: Option<ReadyFile>,
    /// Who carries cells.
    processes: BTreeMap<String, u32>,
    /// From the first line to the first byte of the download: keys, list, gossip, links, guard, route.
    formed: Option<Duration>,
    /// Its own download is done.
    is_ready: bool,
}

/// What came out; printed as the last line.
#[derive(Debug, Serialize)]
struct Outcome {
    bytes: usize,
    sha256: String,
    hops: usize,
    route: Vec<String>,
    megabytes_per_second: f64,
    first_byte_ms: f64,
    #[serde(flatten)]
    ready: Ready,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, sha256, hops, megabytes_per_second: rate, first_byte_ms, .. } = self;
        write!(f, "ok {bytes} bytes sha256 {sha256} hops {hops} {rate:.1} MB/s, first byte {first_byte_ms:.1} ms")
    }
}

impl Show<'_> {
    /// Downloads; then stays, unless only the `check` was wanted.
    async fn run(&mut self, mesh: &mut Mesh, content: &Content, deadline: Instant, check: bool) -> Result<(), Failure> {
        self.introduce(mesh)?;
        let began = Instant::now();
        let (download, route, first_byte) = self.download(mesh, deadline).await?;
        self.formed = Some(first_byte - began);
        let outcome = self.judge(content, &download, &route)?;
        drop(download);
        if !route.is_empty() {
            self.say(&format!("route   client, {}, origin", route.join(", ")))?;
        }
        self.say(&format!("the mesh made itself: first byte {:.1} s after the first line", (first_byte - began).as_secs_f64()))?;
        self.say(&format!("first byte {:.1} ms, {:.1} MB/s", outcome.first_byte_ms, outcome.megabytes_per_second))?;
        self.is_ready = true;
        self.write_ready()?;
        self.output.print(&outcome, &outcome)?;
        if check {
            return Ok(());
        }
        self.invite()?;
        loop {
            let event = mesh.event().await;
            self.hear(event)?;
        }
    }

    fn introduce(&mut self, mesh: &Mesh) -> Result<(), Failure> {
        let Plan { members, socks, origin, .. } = self.plan;
        let place = if mesh.has_processes() { "processes of their own" } else { "one process" };
        let nodes = counted(members.len() as u64 - 1, "node");
        self.say(&format!("{nodes} and a client on this machine, in {place}"))?;
        self.say("parameters: the demo set, for a mesh on one machine; not for a network of strangers")?;
        for member in members.iter().filter(|member| member.node.is_some()) {
            let [address] = member.config.node.listen[..] else { continue };
            self.say(&format!("{}  {address}{}", member.name, if member.is_exit() { "  exit" } else { "" }))?;
        }
        self.say(&format!("client  {socks}  SOCKS and HTTP proxy"))?;
        self.say(&format!("origin  http://{origin}  {ORIGIN_NAME} in the mesh"))
    }

    /// The download, with its route where the client tells it; what happens to members meanwhile is shown too.
    async fn download(&mut self, mesh: &mut Mesh, deadline: Instant) -> Result<(Download, Vec<String>, Instant), Failure> {
        let mut waits_for = "the first node".to_owned();
        let mut progress = Progress::new(BYTES);
        let plan = self.plan;
        let outcome = {
            let download = tokio::time::timeout_at(deadline, download(plan, &mut waits_for, &mut progress));
            tokio::pin!(download);
            loop {
                tokio::select! {
                    outcome = &mut download => break outcome,
                    event = mesh.event() => self.hear_at_start(event)?,
                }
            }
        };
        progress.clear();
        outcome.unwrap_or_else(|_| Err(Failure::new(Kind::Failed, format_args!("gave up waiting for {waits_for}"))))
    }

    fn judge(&self, content: &Content, download: &Download, route: &[String]) -> Result<Outcome, Failure> {
        let hash = sha256(&[&download.body]);
        let expected = content.bytes(BYTES as u64).sha256();
        if hash != expected {
            let problem = format!("the download is damaged: sha256 {} instead of {}", hex(&hash), hex(&expected));
            return Err(Failure::new(Kind::Failed, problem));
        }
        let hops = usize::from(self.plan.hops);
        if !route.is_empty() && route.len() != hops {
            let problem = format!("the route has {} hops instead of {hops}: {}", route.len(), route.join(", "));
            return Err(Failure::new(Kind::Failed, problem));
        }
        Ok(Outcome {
            bytes: download.body.len(),
            sha256: hex(&hash),
            hops,
            route: route.to_vec(),
            megabytes_per_second: download.rate(),
            first_byte_ms: download.first_byte.as_secs_f64() * 1e3,
            ready: self.ready(),
        })
    }

    fn invite(&self) -> Result<(), Failure> {
        let Plan { socks, origin, .. } = self.plan;
        let port = origin.port();
        self.say("try, until Ctrl-C:")?;
        self.say(&format!("  curl --socks5-hostname {socks} http://{ORIGIN_NAME}:{port}/1k.bin | sha256sum"))?;
        self.say(&format!("  curl -x http://{socks} http://{ORIGIN_NAME}:{port}/10m.bin | sha256sum"))
    }

    /// Before the download a member that gives up ends the demo: its reason is better than a deadline.
    fn hear_at_start(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::GaveUp { name, failure } => Err(Failure::new(failure.kind, format_args!("{name}: {}", failure.message))),
            event => self.hear(event),
        }
    }

    fn hear(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Started { name, process } => {
                let is_back = self.processes.insert(name.clone(), process).is_some();
                if is_back {
                    self.say(&format!("{name} is back as process {process}"))?;
                }
                if self.is_ready { self.write_ready() } else { Ok(()) }
            }
            Event::Killed { name, how } => self.say(&format!("{name} was killed by {how}, and comes back in 1 s")),
            Event::GaveUp { name, failure } => self.say(&format!("{name} gave up: {}", failure.message)),
            Event::Ended { name } => {
                self.processes.remove(&name);
                self.say(&format!("{name} has ended, and stays down"))?;
                if self.is_ready { self.write_ready() } else { Ok(()) }
            }
        }
    }

    fn ready(&self) -> Ready {
        let mut processes = self.processes.clone();
        if processes.is_empty() {
            // Nobody has a process of its own: this one carries the cells.
            processes.insert("demo".to_owned(), std::process::id());
        }
        Ready::new(self.plan, processes, self.formed)
    }

    fn write_ready(&self) -> Result<(), Failure> {
        let Some(file) = &self.ready_file else { return Ok(()) };
        file.write(&self.ready()).map_err(|error| Failure::system("cannot write the ready file", &error))
    }

    /// A line for people.
    fn say(&self, line: &str) -> Result<(), Failure> {
        if self.output.is_json() {
            eprintln!("{line}");
            return Ok(());
        }
        write_out(format!("{line}\n").as_bytes())
    }
}

/// Waits for the mesh, downloads, and finds the route; tries again while the mesh is not there yet.
async fn download(
    plan: &Plan,
    waits_for: &mut String,
    progress: &mut Progress,
) -> Result<(Download, Vec<String>, Instant), Failure> {
    let request = Request { proxy: plan.socks, host: ORIGIN_NAME, port: plan.origin.port(), path: PATH, bytes: BYTES };
    plan.network.publish_list(&plan.members, waits_for).await?;
    loop {
        wait_for_mesh(plan, waits_for).await;
        "the first byte of the download".clone_into(waits_for);
        let (mut route, mut first_byte) = (None, None);
        let result = download::fetch(&request, |bytes| {
            // Asked while the stream is open: that tells its circuit from others.
            first_byte.get_or_insert_with(Instant::now);
            route.get_or_insert_with(|| tokio::spawn(route_of(plan.control.clone())));
            progress.show(bytes);
        })
        .await;
        match result {
            Ok(download) => {
                // A client that does not tell it is no reason to fail.
                let route = match route {
                    Some(asked) => asked.await.unwrap_or_default(),
                    None => Vec::new(),
                };
                return Ok((download, plan.names_of(&route), first_byte.unwrap_or_else(Instant::now)));
            }
            Err(error @ DownloadError::Wrong(_)) => return Err(Failure::new(Kind::Failed, error)),
            Err(error) => *waits_for = format!("a route: {error}"),
        }
        progress.clear();
        tokio::time::sleep(AGAIN).await;
    }
}

/// Until nobody waits for anything: the first circuit over a link that is not up yet would cost its repetition.
async fn wait_for_mesh(plan: &Plan, waits_for: &mut String) {
    for member in &plan.members {
        while let Some(missing) = missing(member).await {
            *waits_for = format!("{}: {missing}", member.name);
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// What a member still waits for, in words.
async fn missing(member: &Member) -> Option<String> {
    match control::status(&member.config.control).await {
        Err(error) => Some(error.to_string()),
        Ok(Status { waiting_for: Some(waiting), .. }) => Some(waiting),
        Ok(status) => (!status.links.is_empty() && status.links.iter().all(|link| !link.up)).then(|| "its first link".to_owned()),
    }
}

/// The route of the circuit with most streams.
async fn route_of(control: std::path::PathBuf) -> Vec<String> {
    let Ok(status) = control::status(&control).await else { return Vec::new() };
    let busiest = status.standing.into_iter().filter(|circuit| circuit.open).max_by_key(|circuit| circuit.streams);
    busiest.map(|circuit| circuit.route).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_line_has_its_form() {
        let plan = Plan::make(1, 1, &mut Ports::new()).unwrap();
        let outcome = Outcome {
            bytes: BYTES,
            sha256: "ab".repeat(32),
            hops: 3,
            route: Vec::new(),
            megabytes_per_second: 412.34,
            first_byte_ms: 3.06,
            ready: Ready::new(&plan, BTreeMap::new(), None),
        };
        let line = format!("ok 100000000 bytes sha256 {} hops 3 412.3 MB/s, first byte 3.1 ms", "ab".repeat(32));
        assert_eq!(outcome.to_string(), line);
        let json = serde_json::to_value(&outcome).unwrap();
        assert_eq!((&json["hops"], &json["bytes"]), (&3.into(), &BYTES.into()));
        assert_eq!(json["socks"], plan.socks.to_string());
    }
}
