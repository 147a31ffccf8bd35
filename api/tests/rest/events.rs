//! Guarantee: events are read after any number, and followed until the run's end; a reader that breaks off goes on where it was, and one
//! that does not read keeps nobody from reading.

use crate::place::{Place, TOKEN, served};
use krowoc_api::server::Server;
use poem::http::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

/// Nothing here takes that long on a machine that works.
const LIMIT: Duration = Duration::from_secs(60);

fn chain(steps: usize) -> String {
    let steps: Vec<String> = (0..steps)
        .map(|n| match n {
            0 => "  s0:\n    noop: 0\n".to_owned(),
            n => format!("  s{n}:\n    noop: ${{{{ steps.s{}.output }}}}\n", n - 1),
        })
        .collect();
    format!("krowoc: v1\nname: chain\nsteps:\n{}", steps.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_read_after_any_number() {
    let place = Place::working().await;
    place.register(&chain(5)).await;
    let id = place.ended("chain", json!({})).await["id"].as_str().expect("an id").to_owned();
    let all = place.read(&format!("/runs/{id}/events")).await;
    let kinds: Vec<&str> = all["items"].as_array().expect("items").iter().map(|event| event["kind"].as_str().expect("a kind")).collect();
    assert_eq!((kinds.first(), kinds.last(), kinds.len(), &all["more"]), (Some(&"run_started"), Some(&"run_succeeded"), 7, &json!(false)));
    let page = place.read(&format!("/runs/{id}/events?after=2&limit=3")).await;
    let numbers: Vec<i64> = page["items"].as_array().expect("items").iter().filter_map(|event| event["seq"].as_i64()).collect();
    assert_eq!((numbers.as_slice(), &page["after"], &page["more"]), ([3, 4, 5].as_slice(), &json!(5), &json!(true)));
    assert_eq!(place.read(&format!("/runs/{id}/events?after=7")).await, json!({"items": [], "after": 7, "more": false}));
    for wrong in ["after=-1", "after=x", "after=99999999999"] {
        place.get(&format!("/runs/{id}/events?{wrong}")).send().await.assert_status(StatusCode::BAD_REQUEST);
    }
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_run_that_has_ended_has_all_after_the_last_id_and_ends() {
    let place = Place::working().await;
    place.register(&chain(3)).await;
    let id = place.ended("chain", json!({})).await["id"].as_str().expect("an id").to_owned();
    let path = format!("/runs/{id}/events/stream");
    let answer = place.get(&path).send().await;
    answer.assert_header("content-type", "text/event-stream");
    let text = answer.0.into_body().into_string().await.expect("an end");
    assert_eq!(ids(&text), [1, 2, 3, 4, 5], "{text}");
    assert!(text.contains("event: run_succeeded\n"), "{text}");
    let answer = place.get(&format!("{path}?after=1")).header("last-event-id", "3").send().await;
    assert_eq!(ids(&answer.0.into_body().into_string().await.expect("an end")), [4, 5], "the header goes before");
    let answer = place.get(&format!("{path}?after=5")).send().await;
    assert_eq!(ids(&answer.0.into_body().into_string().await.expect("an end")), [0; 0]);
    place.get(&path).header("last-event-id", "x").send().await.assert_status(StatusCode::BAD_REQUEST);
    place.done().await;
}

fn ids(text: &str) -> Vec<i32> {
    text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().expect("a number")).collect()
}

/// A server on a socket, since one that does not read is a matter of sockets.
struct Listening {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Listening {
    async fn of(place: &Place) -> Self {
        let server = Server::bind("127.0.0.1:0".parse().expect("an address")).await.expect("bound");
        let (address, stop) = (server.address(), CancellationToken::new());
        let server = tokio::spawn(server.run(served(&place.api, place.limits), stop.clone().cancelled_owned()));
        Self { address, stop, server }
    }

    async fn ask(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        let request =
            format!("GET /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream
    }

    async fn stop(self) {
        self.stop.cancel();
        self.server.await.expect("no panic").expect("stopped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_keeps_nobody_from_reading() {
    let place = Place::working().await;
    place.register(&chain(40)).await;
    let listening = Listening::of(&place).await;
    // A run that waits until all readers are there.
    place.register("krowoc: v1\nname: waits\nsteps:\n  w:\n    wait: {for: 1s}\n  a:\n    needs: [w]\n    noop: 1\n").await;
    let id = place.start("waits", json!({})).await;
    let path = format!("/runs/{id}/events/stream");
    let mut lazy = Vec::new();
    for _ in 0..50 {
        lazy.push(listening.ask(&path).await);
    }
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let stream = listening.ask(&path).await;
        readers.spawn(async move {
            let mut text = String::new();
            BufReader::new(stream).read_to_string(&mut text).await.expect("an end");
            text
        });
    }
    let read = async {
        while let Some(text) = readers.join_next().await {
            assert_eq!(text.expect("read").matches("event: run_succeeded").count(), 1);
        }
        // The pool and the watch are free as well.
        assert_eq!(place.ended("chain", json!({})).await["status"], "succeeded");
    };
    tokio::time::timeout(LIMIT, read).await.expect("in time, though fifty do not read");
    drop(lazy);
    listening.stop().await;
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_told_when_it_happens_and_a_server_that_stops_ends_its_streams() {
    let place = Place::new().await;
    place.register(&chain(2)).await;
    let listening = Listening::of(&place).await;
    let id = place.start("chain", json!({})).await;
    let mut lines = BufReader::new(listening.ask(&format!("/runs/{id}/events/stream")).await).lines();
    let mut until = async |wanted: &str| -> bool {
        tokio::time::timeout(LIMIT, async {
            loop {
                match lines.next_line().await.expect("read") {
                    Some(line) if line.contains(wanted) => return true,
                    Some(_) => {}
                    None => return false,
                }
            }
        })
        .await
        .expect("in time")
    };
    assert!(until("event: run_started").await);
    let (status, _) = place.send(&format!("/runs/{id}/cancel"), &Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert!(until("event: run_cancelled").await);
    assert!(!until("nothing more").await, "it ends with the run");

    let id = place.start("chain", json!({})).await;
    let mut lines = BufReader::new(listening.ask(&format!("/runs/{id}/events/stream")).await).lines();
    while !lines.next_line().await.expect("read").expect("a line").contains("run_started") {}
    place.api.watch().close();
    tokio::time::timeout(LIMIT, async { while lines.next_line().await.expect("read").is_some() {} }).await.expect("the stream ends");
    listening.stop().await;
    place.done().await;
}
