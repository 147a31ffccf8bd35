//! Guarantee: runs are listed without gaps or doubles while new ones come, and looked into whatever their shape.

use crate::place::{Place, code};
use poem::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

const MAP: &str = "krowoc: v1\nname: map\nsteps:\n  m:\n    map:\n      over: ${{ range(5) }}\n      as: n\n      steps:\n        one:\n          noop: ${{ n }}\n      collect: ${{ steps.one.output }}\n  last:\n    noop: ${{ steps.m.output | sum }}\noutput: ${{ steps.last.output }}\n";

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_each_run_once_though_new_ones_are_started() {
    let place = Place::new().await;
    place.register("krowoc: v1\nname: note\nsteps:\n  a:\n    noop: 1\n").await;
    place.register(&MAP.replace("name: map", "name: other")).await;
    let mut before = Vec::new();
    for n in 0..7 {
        before.push(place.start("note", json!({"n": n})).await);
        place.start("other", json!({})).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = place.read(&format!("/runs?workflow=note&status=queued&limit=3{cursor}")).await;
        seen.extend(page["items"].as_array().expect("items").iter().map(|run| run["id"].as_str().expect("an id").to_owned()));
        let Some(next) = page.get("next").and_then(Value::as_str) else { break };
        cursor = format!("&cursor={next}");
        place.start("note", json!({})).await;
    }
    before.reverse();
    assert_eq!(seen, before);
    let next = place.read("/runs?limit=1").await["next"].as_str().expect("more").to_owned();
    for other in [format!("/runs?workflow=note&cursor={next}"), format!("/workflows?cursor={next}"), "/runs?cursor=00ff".into()] {
        let answer = place.get(&other).send().await;
        answer.assert_status(StatusCode::BAD_REQUEST);
        assert_eq!(code(&crate::place::value(answer).await), "invalid_cursor", "{other}");
    }
    let now = place.read("/runs?limit=1").await["items"][0]["created_at"].as_str().expect("a time").to_owned();
    assert_eq!(place.read(&format!("/runs?since={now}")).await["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        place.read(&format!("/runs?until={now}&limit=1000")).await["items"].as_array().map(Vec::len),
        Some(15),
        "the newest is not before itself"
    );
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_looked_into_step_by_step_and_item_by_item() {
    let place = Place::working().await;
    place.register(MAP).await;
    let run = place.ended("map", json!({})).await;
    let id = run["id"].as_str().expect("an id");
    assert_eq!((&run["status"], &run["output"]), (&json!("succeeded"), &json!(10)));
    let shown = place.read(&format!("/runs/{id}")).await;
    assert_eq!((&shown["output"], shown.get("error"), shown.get("created")), (&json!(10), None, None));

    let steps = place.read(&format!("/runs/{id}/steps")).await;
    assert_eq!(steps["items"][0]["items"], json!({"total": 5, "done": 5, "failed": 0, "running": 0}));
    assert_eq!(place.read(&format!("/runs/{id}/steps/inside")).await["items"][0]["done"], 5);
    assert_eq!(place.read(&format!("/runs/{id}/steps/output?path=m")).await, json!([0, 1, 2, 3, 4]));
    assert_eq!(place.read(&format!("/runs/{id}/steps/output?path=m[3].one")).await, json!(3));

    let first = place.read(&format!("/runs/{id}/items?map=m&limit=3")).await;
    let next = first["next"].as_str().expect("more");
    let second = place.read(&format!("/runs/{id}/items?map=m&limit=3&cursor={next}")).await;
    let numbers = |page: &Value| page["items"].as_array().expect("items").iter().map(|item| item["number"].as_i64()).collect::<Vec<_>>();
    assert_eq!((numbers(&first), numbers(&second)), (vec![Some(0), Some(1), Some(2)], vec![Some(3), Some(4)]));
    assert_eq!(second.get("next"), None);

    let (mut paths, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = place.read(&format!("/runs/{id}/attempts?limit=2{cursor}")).await;
        paths.extend(page["items"].as_array().expect("items").iter().map(|attempt| attempt["path"].as_str().expect("a path").to_owned()));
        let Some(next) = page.get("next").and_then(Value::as_str) else { break };
        cursor = format!("&cursor={next}");
    }
    paths.sort();
    assert_eq!(paths, ["last", "m", "m[0].one", "m[1].one", "m[2].one", "m[3].one", "m[4].one"]);
    assert_eq!(place.read(&format!("/runs/{id}/attempts?path=m[2].one")).await["items"].as_array().map(Vec::len), Some(1));
    assert!(place.read(&format!("/runs/{id}/why")).await["sentence"].as_str().is_some_and(|why| why.contains("succeeded")));
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found_and_what_is_no_id_is_refused() {
    let place = Place::new().await;
    place.register(MAP).await;
    let id = place.start("map", json!({})).await;
    let none = Uuid::now_v7();
    let missing = [
        format!("/runs/{none}"),
        format!("/runs/{none}/steps"),
        format!("/runs/{none}/items?map=m"),
        format!("/runs/{none}/attempts"),
        format!("/runs/{none}/events"),
        format!("/runs/{none}/events/stream"),
        format!("/runs/{none}/why"),
        format!("/runs/{id}/items?map=last"),
        format!("/runs/{id}/items?map=nothing"),
        format!("/runs/{id}/attempts?path=m[7].one"),
        format!("/runs/{id}/steps/output?path=last"),
        format!("/dead-letters/{none}"),
    ];
    for path in missing {
        let answer = place.get(&path).send().await;
        assert_eq!(answer.0.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(code(&crate::place::value(answer).await), "not_found", "{path}");
    }
    for path in [
        "/runs/7",
        "/runs?limit=0",
        "/runs?limit=1001",
        "/runs?limit=99999999999999999999",
        "/runs?status=done",
        "/runs?since=yesterday",
        "/runs?statsu=failed",
        "/runs?limit=1&limit=2",
        "/runs?workflow=%00",
    ] {
        let answer = place.get(path).send().await;
        assert_eq!(answer.0.status(), StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(code(&crate::place::value(answer).await), "invalid_parameter", "{path}");
    }
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_stays_cancelled_and_one_that_has_ended_is_a_conflict() {
    let place = Place::new().await;
    place.register(MAP).await;
    let id = place.start("map", json!({})).await;
    for _ in 0..2 {
        let (status, cancelled) = place.send(&format!("/runs/{id}/cancel"), &Value::Null).await;
        assert_eq!((status, cancelled), (StatusCode::OK, json!({"status": "cancelled", "in_flight": 0})));
    }
    assert_eq!(place.read(&format!("/runs/{id}")).await["status"], "cancelled");
    assert_eq!(place.send(&format!("/runs/{}/cancel", Uuid::now_v7()), &Value::Null).await.0, StatusCode::NOT_FOUND);
    place.done().await;
    let place = Place::working().await;
    place.register(MAP).await;
    let run = place.ended("map", json!({})).await;
    let (status, problem) = place.send(&format!("/runs/{}/cancel", run["id"].as_str().expect("an id")), &Value::Null).await;
    assert_eq!((status, code(&problem)), (StatusCode::CONFLICT, "conflict"));
    place.done().await;
}
