//! Guarantee: a step that failed for good is a dead letter; it is redriven and discarded over REST as by the command line.

use crate::place::{Place, code, value};
use poem::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

const FAILS: &str = "krowoc: v1\nname: fails\nsteps:\n  a:\n    retry: {attempts: 1}\n    scripted: {fail_first: 1, class: server_error, output: 1}\noutput: ${{ steps.a.output }}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_listed_shown_redriven_and_resolved() {
    let place = Place::working().await;
    place.register(FAILS).await;
    let run = place.ended("fails", json!({})).await;
    let id = run["id"].as_str().expect("an id");
    assert_eq!((&run["status"], &run["error"]["step"]), (&json!("failed"), &json!("a")));
    let letters = place.read(&format!("/dead-letters?run={id}&state=open&workflow=fails&class=server_error")).await;
    let letter = letters["items"][0]["id"].as_str().expect("a letter");
    assert_eq!(letters["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(place.read("/dead-letters?class=timeout").await["items"], json!([]));
    let shown = place.read(&format!("/dead-letters/{letter}")).await;
    assert_eq!((&shown["error"]["class"], &shown["history"][0]["status"]), (&json!("server_error"), &json!("failed")));

    let none = Uuid::now_v7();
    let (status, reports) = place.send("/dead-letters/redrive", &json!({"ids": [letter, none]})).await;
    assert_eq!((status, &reports["items"][0]["outcome"], &reports["items"][0]["run"]), (StatusCode::OK, &json!("redriven"), &json!(id)));
    assert_eq!((&reports["items"][1]["outcome"], &reports["items"][1]["code"]), (&json!("refused"), &json!("not_found")));
    let (_, again) = place.send("/dead-letters/redrive", &json!({"ids": [letter]})).await;
    assert_eq!(again["items"][0]["outcome"], "already_redriven");
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_discarded_for_a_reason_and_then_not_redriven() {
    let place = Place::working().await;
    place.register(FAILS).await;
    place.ended("fails", json!({})).await;
    let letter = place.read("/dead-letters").await["items"][0]["id"].as_str().expect("a letter").to_owned();
    for wrong in [json!({"ids": [], "reason": "x"}), json!({"ids": [letter], "reason": " "}), json!({"ids": [letter], "reason": "\u{0}"})] {
        let (status, problem) = place.send("/dead-letters/discard", &wrong).await;
        assert_eq!((status, code(&problem)), (StatusCode::UNPROCESSABLE_ENTITY, "invalid"), "{wrong}");
    }
    let (_, reports) = place.send("/dead-letters/discard", &json!({"ids": [letter], "reason": "the sea is calm"})).await;
    assert_eq!(reports, json!({"items": [{"letter": letter, "outcome": "discarded"}]}));
    assert_eq!(place.read("/dead-letters?state=discarded").await["items"][0]["reason"], "the sea is calm");
    let (_, reports) = place.send("/dead-letters/redrive", &json!({"ids": [letter]})).await;
    assert_eq!((&reports["items"][0]["outcome"], &reports["items"][0]["code"]), (&json!("refused"), &json!("conflict")));
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_show_what_waits_for_a_worker() {
    let place = Place::new().await;
    place.register(FAILS).await;
    place.start("fails", json!({})).await;
    let answer = place.get("/queues").send().await;
    let queues: Value = value(answer).await;
    assert_eq!(
        (&queues["items"][0]["name"], &queues["items"][0]["ready_steps"], &queues["items"][0]["workers"]),
        (&json!("default"), &json!(1), &json!(0))
    );
    place.done().await;
}
