//! Guarantee: a step is not kept waiting by a connection that was made on threads which nobody gives back.
//!
//! Guard: each runtime has a client of its own (`net::Client::get`). Without it the second request goes to a connection whose task never
//! comes to its turn.

mod support;

use krowoc_steps::{StepsConfig, kinds};
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};
use support::{context, execute, output};
use tokio::runtime::{Builder, Runtime};

/// Answers any number of requests on each connection, and counts connections.
fn keep_alive_server() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, connections) = (listener.local_addr().expect("an address"), Arc::<AtomicUsize>::default());
    let counted = connections.clone();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            counted.fetch_add(1, SeqCst);
            std::thread::spawn(move || serve(&stream));
        }
    });
    (address, connections)
}

fn serve(mut stream: &TcpStream) {
    let lines = BufReader::new(stream).lines();
    for line in lines.map_while(Result::ok) {
        if line.is_empty() && stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

#[test]
fn a_connection_of_threads_that_are_taken_keeps_nobody_else_waiting() {
    let (address, connections) = keep_alive_server();
    let kinds = Arc::new(kinds(StepsConfig { allow_private_addresses: true, ..StepsConfig::default() }));
    let request = || {
        let (kinds, config) = (kinds.clone(), json!({"url": format!("http://{address}/")}));
        async move { execute(&kinds, "http", &context(), config).await }
    };
    let (first, spare) = (runtime(), runtime());
    for _ in 0..2 {
        let answered = first.block_on(first.spawn(request())).expect("a task").expect("an answer");
        assert_eq!(output(&answered)["body"], "ok");
    }
    assert_eq!(connections.load(SeqCst), 1, "the connection was kept");
    let ((blocks, blocked), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
    first.spawn(async move {
        blocks.send(()).expect("somebody waits");
        released.recv().expect_err("dropped at the end");
    });
    blocked.recv().expect("the only thread is taken");
    let answered = spare.block_on(async { tokio::time::timeout(Duration::from_secs(10), request()).await });
    let answered = answered.expect("in time").expect("an answer");
    assert_eq!((&output(&answered)["body"], connections.load(SeqCst)), (&json!("ok"), 2));
    drop(release);
}
