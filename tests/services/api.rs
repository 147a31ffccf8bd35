//! Guarantee: the API's token is made once and shown once, a renewed one replaces it, and under `krowoc dev` no other name than this machine's
//! leads to it.

use crate::{
    place::Place,
    process::{LIMIT, Process},
};
use rustix::process::Signal;
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Instant,
};

const SHOWN: &str = "Token       ";

fn ask(address: &str, token: &str, host: &str) -> u16 {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(LIMIT)).expect("set");
    write!(stream, "GET /api/v1/runs HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

/// The token that it has shown.
fn shown(said: &str) -> String {
    let (_, after) = said.split_once(SHOWN).unwrap_or_else(|| panic!("no token was shown: {said}"));
    after.split_whitespace().next().expect("a token").to_owned()
}

fn serve(place: &Place) -> (Process, String) {
    let mut serve = place.krowoc(&["serve", "--bind", "127.0.0.1:0"]);
    let address = serve.address();
    (serve, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_shows_a_token_and_a_renewed_one_replaces_it_everywhere() {
    let place = Place::new().await;
    let (first, address) = serve(&place);
    let token = shown(&first.said());
    let (second, other) = serve(&place);
    assert!(!second.said().contains(SHOWN), "{}", second.said());
    for address in [&address, &other] {
        assert_eq!((ask(address, &token, "localhost"), ask(address, "krw_wrong", "localhost")), (200, 401));
    }
    let (status, renewed) = place.krowoc(&["token", "renew"]).ends();
    assert!(status.success(), "{renewed}");
    let renewed = renewed.trim();
    for address in [&address, &other] {
        let until = Instant::now() + LIMIT;
        while (ask(address, renewed, "localhost"), ask(address, &token, "localhost")) != (200, 401) {
            assert!(Instant::now() < until, "the old token still opens, or the new one does not");
        }
    }
    first.signal(Signal::TERM);
    let (status, said) = first.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!((said.matches(&token).count(), said.matches(renewed).count()), (1, 0), "a token is in the log:\n{said}");
    assert!(said.contains("correlation_id=") && said.contains("/api/v1/runs"), "{said}");
    second.signal(Signal::TERM);
    assert_eq!(second.ends().0.code(), Some(0));
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_the_configuration_is_the_only_one() {
    let place = Place::new().await;
    let environment = [("DATABASE_URL", place.url.as_str()), ("KROWOC_API_TOKEN", "correct-horse-battery")];
    let mut serve = Process::start(place.folder.path(), &environment, &["serve", "--bind", "127.0.0.1:0"]);
    let address = serve.address();
    assert_eq!((ask(&address, "correct-horse-battery", "any.example"), ask(&address, "correct-horse-batterY", "localhost")), (200, 401));
    serve.signal(Signal::TERM);
    let (status, said) = serve.ends();
    assert!(status.success() && !said.contains("correct-horse") && !said.contains(SHOWN), "{said}");
    assert_eq!(place.count("SELECT count(*) FROM krowoc.api_token").await, 0);
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_dev_no_other_name_leads_to_the_api() {
    let place = Place::new().await;
    fs::create_dir(place.folder.path().join("workflows")).expect("made");
    let mut dev = place.krowoc(&["dev", "--port", "0"]);
    let token = shown(&dev.says("Ready."));
    let address = dev.address();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    for (host, status) in [(address.as_str(), 200), ("localhost:7070", 200), ("evil.example", 421), ("127.0.0.1.evil.example", 421)] {
        assert_eq!(ask(&address, &token, host), status, "{host}");
    }
    dev.signal(Signal::INT);
    assert_eq!(dev.ends().0.code(), Some(0));
    place.done().await;
}
