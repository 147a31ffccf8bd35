//! Guarantee: a workflow is checked and registered as by the command line, and what is wrong with it has its place.

use crate::place::{Place, code, value};
use poem::http::StatusCode;
use serde_json::json;

const NOTE: &str = "krowoc: v1\nname: note\nsteps:\n  a:\n    noop: 1\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_is_the_same_version_and_another_is_the_next() {
    let place = Place::new().await;
    let answer = place.post("/workflows").body_json(&json!({"workflow": NOTE})).send().await;
    answer.assert_status(StatusCode::CREATED);
    answer.assert_header("location", "/api/v1/workflows/note/versions/1");
    assert_eq!(value(answer).await, json!({"workflow": "note", "number": 1, "created": true}));
    let (status, again) = place.send("/workflows", &json!({"workflow": NOTE})).await;
    assert_eq!((status, &again["number"], &again["created"]), (StatusCode::OK, &json!(1), &json!(false)));
    assert_eq!(place.register(&NOTE.replace("noop: 1", "noop: 2")).await["number"], 2);

    let workflow = place.read("/workflows/note").await;
    assert_eq!((&workflow["version"], &workflow["versions"]), (&json!(2), &json!(2)));
    assert_eq!(place.read("/workflows").await["items"], json!([workflow]));
    let version = place.read("/workflows/note/versions/1").await;
    assert_eq!(version["definition"]["steps"]["a"]["noop"], 1);
    let first = place.read("/workflows/note/versions?limit=1").await;
    assert_eq!(first["items"][0]["number"], 2);
    let second = place.read(&format!("/workflows/note/versions?limit=1&cursor={}", first["next"].as_str().expect("more"))).await;
    assert_eq!((&second["items"][0]["number"], second.get("next")), (&json!(1), None));
    for missing in [
        "/workflows/none",
        "/workflows/none/versions",
        "/workflows/note/versions/3",
        "/workflows/%00",
        "/workflows/note/versions/9999999999",
    ] {
        let answer = place.get(missing).send().await;
        assert!(matches!(answer.0.status(), StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST), "{missing}: {}", answer.0.status());
    }
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_of_a_workflow_is_told_with_line_and_column() {
    let place = Place::new().await;
    let wrong = json!({"workflow": "krowoc: v1\nname: note\nsteps:\n  a:\n    nop: 1\n  b:\n    needs: [c]\n    noop: 1\n"});
    let (status, verdict) = place.send("/workflows/validate", &wrong).await;
    assert_eq!((status, &verdict["valid"]), (StatusCode::OK, &json!(false)));
    let problems = verdict["problems"].as_array().expect("problems");
    assert!(
        problems.len() >= 2 && problems.iter().all(|problem| problem["line"].is_number() && problem["column"].is_number()),
        "{verdict}"
    );
    let (status, refused) = place.send("/workflows", &wrong).await;
    assert_eq!((status, code(&refused), &refused["problems"]), (StatusCode::UNPROCESSABLE_ENTITY, "invalid", &verdict["problems"]));

    let (_, verdict) = place.send("/workflows/validate", &json!({"workflow": NOTE, "prompts": {"p.md": "Hello {{ who }}."}})).await;
    assert_eq!((&verdict["valid"], &verdict["problems"][0]["file"]), (&json!(false), &json!("p.md")), "{verdict}");
    let (_, verdict) = place.send("/workflows/validate", &json!({"workflow": NOTE})).await;
    assert_eq!(verdict, json!({"valid": true, "workflow": "note", "problems": []}));
    assert_eq!(place.read("/workflows").await["items"], json!([]), "checking registers nothing");
    place.done().await;
}
