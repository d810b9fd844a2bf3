//! The control API, from both ends: what an asker may send, and what a daemon may answer (docs/control-api.md).
//!
//! The first byte says which end reads, and in what pieces; the rest is what comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use port17::control::{
    Bounds, Circuits, Daemon, MeshMap, Refusal, RefusalCode, Reloaded, Role, RouteSample, RouteWish, Status, exchange,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::choices::Choices;
use crate::talk::{self, Talk};

/// Asks, or hears.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let first = choices.byte();
    let piece = if first < 0x80 { usize::from(first >> 1) } else { usize::MAX };
    match first & 1 {
        0 => ask(choices.rest(), piece),
        _ => hear(choices.rest()),
    }
}

/// A daemon that counts what it was asked to do.
#[derive(Default)]
struct Counting {
    questions: AtomicUsize,
    reloads: AtomicUsize,
}

impl Counting {
    fn asked(&self) {
        self.questions.fetch_add(1, Ordering::Relaxed);
    }
}

impl Daemon for Counting {
    async fn status(&self) -> Result<Status, Refusal> {
        self.asked();
        Ok(Status::of(Role::Client))
    }

    async fn map(&self) -> Result<MeshMap, Refusal> {
        self.asked();
        Ok(MeshMap::default())
    }

    fn circuits(&self) -> Result<Circuits, Refusal> {
        self.asked();
        Ok(Circuits::default())
    }

    fn draw_route(&self, wish: &RouteWish) -> Result<RouteSample, Refusal> {
        self.asked();
        comes_back(wish);
        Err(Refusal::new(RefusalCode::NoRoute, format_args!("{:?}", wish.hops)))
    }

    async fn reload(&self) -> Result<Reloaded, Refusal> {
        self.asked();
        self.reloads.fetch_add(1, Ordering::Relaxed);
        Ok(Reloaded::default())
    }
}

fn ask(coming: &[u8], piece: usize) {
    let daemon = Arc::new(Counting::default());
    let mut talk = Talk::new(coming, piece);
    talk::run(exchange(&mut talk, Arc::clone(&daemon), Bounds::DEFAULT));
    let contains = |text: &[u8]| coming.windows(text.len()).any(|part| part == text);
    assert!(daemon.questions.load(Ordering::Relaxed) <= 1, "a connection asks once");
    assert!(daemon.reloads.load(Ordering::Relaxed) == 0 || contains(b"POST ") && contains(b"/v1/reload"));
    answered(&talk.said);
}

/// Nothing, or one answer that is HTTP with a body in JSON.
fn answered(said: &[u8]) {
    let said = said.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(said);
    if said.is_empty() {
        return;
    }
    let head_end = said.windows(4).position(|part| part == b"\r\n\r\n").expect("an answer has a whole head") + 4;
    let (head, body) = said.split_at(head_end);
    assert!(head.starts_with(b"HTTP/1.1 ") || head.starts_with(b"HTTP/1.0 "), "an answer is HTTP");
    // Those without a body are hyper's own, for what is no HTTP, and those to HEAD.
    if !body.is_empty() {
        serde_json::from_slice::<serde_json::Value>(body).expect("an answer is one JSON value");
    }
}

/// What a daemon of another version, or another program, answers.
fn hear(body: &[u8]) {
    heard::<Status>(body);
    heard::<MeshMap>(body);
    heard::<Circuits>(body);
    heard::<RouteSample>(body);
    heard::<Reloaded>(body);
    heard::<Refusal>(body);
}

fn heard<A: DeserializeOwned + Serialize>(body: &[u8]) {
    if let Ok(answer) = serde_json::from_slice::<A>(body) {
        comes_back(&answer);
    }
}

fn comes_back<A: DeserializeOwned + Serialize>(value: &A) {
    let written = serde_json::to_vec(value).expect("a value can be written");
    let read: A = serde_json::from_slice(&written).expect("what is written can be read");
    assert_eq!(serde_json::to_vec(&read).ok(), Some(written), "a value has one form");
}

/// The questions of the command line, and answers to them.
pub fn seeds() -> Vec<Vec<u8>> {
    let request = |method: &str, path: &str, body: &str| {
        let length = body.len();
        format!("{method} {path} HTTP/1.1\r\nhost: port17\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let wish = RouteWish { hops: Some(3), target: Some("example.com:443".into()), exclude: vec!["node-abcd.x".into()] };
    let wish = serde_json::to_string(&wish).expect("a wish can be written");
    let questions = [
        request("GET", "/v1/status", ""),
        request("GET", "/v1/map", ""),
        request("GET", "/v1/circuits", ""),
        request("POST", "/v1/route", &wish),
        request("POST", "/v1/route", ""),
        request("POST", "/v1/reload", ""),
        request("DELETE", "/v1/map", ""),
        request("GET", "/v2/status", ""),
        "POST /v1/route HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_owned(),
    ];
    let refusal = Refusal::new(RefusalCode::NotAClient, "a node");
    let answers = [
        serde_json::to_string(&Status::of(Role::Node)),
        serde_json::to_string(&refusal),
        serde_json::to_string(&Reloaded::default()),
        Ok(r#"{"hops":[{"node":"x","name":"a","role":"guard","candidates":3}]}"#.to_owned()),
        Ok(r#"{"circuits":[{"route":["a","b"],"streams":2,"age_s":7,"open":true}]}"#.to_owned()),
    ];
    let questions = questions.into_iter().map(|text| [&[0x80], text.as_bytes()].concat());
    let answers = answers.into_iter().map(|text| [&[0x81], text.expect("an answer can be written").as_bytes()].concat());
    questions.chain(answers).collect()
}
