//! Guarantee: starting a run is idempotent by its key, all or none in a batch, and as faithful to its input as the database is.

use crate::place::{Place, code, value};
use futures::future::join_all;
use poem::http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const NOTE: &str = "krowoc: v1\nname: note\ninput: {type: object, properties: {n: {type: integer}}}\nsteps:\n  a:\n    noop: ${{ input.n | default(0) }}\noutput: ${{ steps.a.output }}\n";

async fn keyed(place: &Place, key: &str, input: Value) -> (StatusCode, Value) {
    let body = json!({"workflow": "note", "input": input});
    let answer = place.post("/runs").header("idempotency-key", key).body_json(&body).send().await;
    (answer.0.status(), value(answer).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_run_and_with_another_input_a_conflict() {
    let place = Place::new().await;
    place.register(NOTE).await;
    let all = join_all((0..20).map(|_| keyed(&place, "k", json!({"n": 1})))).await;
    let ids: BTreeSet<&str> = all.iter().map(|(_, started)| started["id"].as_str().expect("an id")).collect();
    assert_eq!((ids.len(), all.iter().filter(|(_, started)| started["created"] == true).count()), (1, 1));
    let (status, problem) = keyed(&place, "k", json!({"n": 2})).await;
    assert_eq!((status, code(&problem)), (StatusCode::CONFLICT, "conflict"));
    for wrong in ["", &"k".repeat(256)] {
        let (status, problem) = keyed(&place, wrong, json!({})).await;
        assert_eq!((status, code(&problem)), (StatusCode::BAD_REQUEST, "invalid_parameter"), "{wrong}");
    }
    // One that can't be read must not count as none.
    let request = || place.post("/runs").body_json(&json!({"workflow": "note"}));
    for request in [request().header("idempotency-key", "h\u{e9}"), request().header("idempotency-key", "a").header("idempotency-key", "b")]
    {
        let answer = request.send().await;
        answer.assert_status(StatusCode::BAD_REQUEST);
    }
    assert_eq!(place.read("/runs").await["items"].as_array().map(Vec::len), Some(1));
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_at_fault_keeps_none_of_those_beside_it_from_starting() {
    let place = Place::new().await;
    place.register(NOTE).await;
    keyed(&place, "taken", json!({"n": 1})).await;
    let good = |n: i32| keyed_or_not(&place, None, "note", json!({"n": n}));
    let conflict = keyed_or_not(&place, Some("taken"), "note", json!({"n": 7}));
    let invalid = keyed_or_not(&place, None, "note", json!({"n": "x"}));
    let missing = keyed_or_not(&place, None, "nothing", json!({}));
    let (goods, conflict, invalid, missing) = tokio::join!(join_all((0..50).map(good)), conflict, invalid, missing);
    assert!(goods.iter().all(|(status, _)| *status == StatusCode::ACCEPTED), "{goods:?}");
    assert_eq!((conflict.0, invalid.0, missing.0), (StatusCode::CONFLICT, StatusCode::UNPROCESSABLE_ENTITY, StatusCode::NOT_FOUND));
    assert_eq!(invalid.1["problems"][0]["pointer"], "/input/n");
    assert_eq!(place.read("/runs?limit=1000").await["items"].as_array().map(Vec::len), Some(51));
    place.done().await;
}

async fn keyed_or_not(place: &Place, key: Option<&str>, workflow: &str, input: Value) -> (StatusCode, Value) {
    let request = place.post("/runs").body_json(&json!({"workflow": workflow, "input": input}));
    let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
    let answer = request.send().await;
    (answer.0.status(), value(answer).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_waited_for_and_its_result_is_the_answer() {
    let place = Place::working().await;
    place.register(NOTE).await;
    let run = place.ended("note", json!({"n": 7})).await;
    assert_eq!(
        (&run["status"], &run["output"], &run["created"], &run["workflow"]),
        (&json!("succeeded"), &json!(7), &json!(true), &json!("note"))
    );
    // The version that is named, though another was registered since.
    place.register(&NOTE.replace("default(0)", "default(1)")).await;
    assert_eq!(place.ended("note", json!({})).await["output"], 1);
    assert_eq!(place.ended("note@1", json!({})).await["output"], 0);
    for missing in ["note@3", "note@0", "note@x", "nothing"] {
        let (status, problem) = place.send("/runs", &json!({"workflow": missing})).await;
        assert_eq!((status, code(&problem)), (StatusCode::NOT_FOUND, "not_found"), "{missing}");
    }
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_over_leaves_the_run_accepted() {
    let place = Place::new().await;
    place.register(NOTE).await;
    let answer = place.post("/runs?wait=1").body_json(&json!({"workflow": "note"})).send().await;
    answer.assert_status(StatusCode::ACCEPTED);
    let location = answer.0.headers()["location"].to_str().expect("text").to_owned();
    let started = value(answer).await;
    assert_eq!(location, format!("/api/v1/runs/{}", started["id"].as_str().expect("an id")));
    let (status, problem) = place.send("/runs?wait=61", &json!({"workflow": "note"})).await;
    assert_eq!((status, code(&problem)), (StatusCode::BAD_REQUEST, "invalid_parameter"));
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_all_or_none_and_says_which_is_at_fault() {
    let place = Place::new().await;
    place.register(NOTE).await;
    let run = |n: Value| json!({"workflow": "note", "input": {"n": n}});
    let (status, problem) = place.send("/runs/batch", &json!({"runs": [run(json!(1)), run(json!("x"))]})).await;
    assert_eq!((status, &problem["problems"][0]["pointer"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("/runs/1/input/n")), "{problem}");
    let (status, problem) = place.send("/runs/batch", &json!({"runs": [run(json!("x"))]})).await;
    assert_eq!((status, &problem["problems"][0]["pointer"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("/runs/0/input/n")), "{problem}");
    for empty in [json!([]), json!(vec![run(json!(1)); 10_001])] {
        assert_eq!(place.send("/runs/batch", &json!({"runs": empty})).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(place.read("/runs").await["items"], json!([]), "none was started");

    let keyed = |key: &str| json!({"workflow": "note", "idempotency_key": key, "priority": 5});
    let (status, started) = place.send("/runs/batch", &json!({"runs": [keyed("a"), keyed("b"), keyed("a"), run(json!(1))]})).await;
    let items = started["items"].as_array().expect("items");
    assert_eq!((status, items.len()), (StatusCode::ACCEPTED, 4));
    assert_eq!(items[0]["id"], items[2]["id"], "the same key is the same run within a batch too");
    let (_, again) = place.send("/runs/batch", &json!({"runs": [keyed("b"), keyed("a")]})).await;
    assert_eq!((&again["items"][0]["id"], &again["items"][1]["id"]), (&items[1]["id"], &items[0]["id"]));
    assert_eq!(again["items"][0]["created"], false);
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_goes_in_and_out_as_the_text_it_is() {
    let place = Place::new().await;
    place.register("krowoc: v1\nname: any\nsteps:\n  a:\n    noop: 1\n").await;
    let odd = r#"{"z":1e400,"a":123456789012345678901234567890,"nul":"\u0000","f":1.0,"a\u0301":"\ud83d\ude00"}"#;
    let body = format!(r#"{{"workflow":"any","input":{odd}}}"#);
    let answer = place.post("/runs").content_type("application/json").body(body).send().await;
    answer.assert_status(StatusCode::ACCEPTED);
    let id = value(answer).await["id"].as_str().expect("an id").to_owned();
    let shown = place.get(&format!("/runs/{id}")).send().await.0.into_body().into_string().await.expect("text");
    assert!(shown.contains(&format!(r#""input":{odd}"#)), "{shown}");
    for (unsound, said) in [(r#""\ud83d""#.to_owned(), "surrogate"), ("[".repeat(200) + &"]".repeat(200), "deeper than 128")] {
        let body = format!(r#"{{"workflow":"any","input":{unsound}}}"#);
        let answer = place.post("/runs").content_type("application/json").body(body).send().await;
        answer.assert_status(StatusCode::BAD_REQUEST);
        let problem = value(answer).await;
        assert!(code(&problem) == "invalid_json" && problem["detail"].as_str().is_some_and(|detail| detail.contains(said)), "{problem}");
    }
    place.done().await;
}
