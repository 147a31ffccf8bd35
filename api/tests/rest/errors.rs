//! Guarantee: whatever is asked wrongly is answered by a problem document with its code, and by nothing else.

use crate::place::{Place, TOKEN, code, value};
use krowoc_api::limits::LimitsConfig;
use poem::http::{Method, StatusCode};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem_document() {
    let place = Place::with(LimitsConfig { largest_body: 4096, ..LimitsConfig::default() }).await;
    let json = "application/json";
    for (method, path, kind, body, status, expected) in [
        ("GET", "/api/v1/nothing", json, "", 404, "no_such_route"),
        ("GET", "/nothing", json, "", 404, "no_such_route"),
        ("DELETE", "/api/v1/runs", json, "", 405, "method_not_allowed"),
        ("POST", "/api/v1/runs", "text/plain", "{}", 415, "unsupported_media_type"),
        ("POST", "/api/v1/runs", json, "", 400, "invalid_json"),
        ("POST", "/api/v1/runs", json, "{", 400, "invalid_json"),
        ("POST", "/api/v1/runs", json, "[]", 400, "invalid_json"),
        ("POST", "/api/v1/runs", json, r#"{"workflow": 7}"#, 400, "invalid_json"),
        ("POST", "/api/v1/runs", json, r#"{"workflow": "x", "inputs": {}}"#, 400, "invalid_json"),
        ("POST", "/api/v1/runs", json, r#"{"workflow": "x", "priority": 32768}"#, 400, "invalid_json"),
        ("POST", "/api/v1/runs", json, "\u{0}", 400, "invalid_json"),
        ("POST", "/api/v1/runs", json, &format!(r#"{{"workflow": "{}"}}"#, "x".repeat(5000)), 413, "too_large"),
        ("POST", "/api/v1/runs?wat=1", json, r#"{"workflow": "x"}"#, 400, "invalid_parameter"),
        ("POST", "/api/v1/dead-letters/redrive", json, r#"{"ids": ["7"]}"#, 400, "invalid_json"),
        ("GET", "/api/v1/runs/not-an-id", json, "", 400, "invalid_parameter"),
    ] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = place.client.request(method.clone(), path).header("authorization", format!("Bearer {TOKEN}")).content_type(kind);
        let answer = request.header("content-length", body.len()).body(body.to_owned()).send().await;
        assert_eq!(answer.0.status().as_u16(), status, "{method} {path} {body}");
        answer.assert_header("content-type", "application/problem+json");
        if status == 405 {
            answer.assert_header("allow", "GET, POST, HEAD");
        }
        let id = answer.0.headers()["x-request-id"].to_str().expect("text").to_owned();
        let problem = value(answer).await;
        assert_eq!((code(&problem), &problem["status"], &problem["correlation_id"]), (expected, &json!(status), &json!(id)), "{problem}");
        assert_eq!(problem["instance"], path.split('?').next().unwrap_or_default());
    }
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_but_the_operators_routes_and_the_docs_needs_the_token() {
    let place = Place::new().await;
    for path in ["/api/v1/runs", "/api/v1/workflows", "/api/v1/nothing"] {
        let answer = place.client.get(path).send().await;
        answer.assert_status(StatusCode::UNAUTHORIZED);
        answer.assert_header("www-authenticate", "Bearer realm=\"krowoc\"");
        assert_eq!(code(&value(answer).await), "unauthorized");
    }
    for path in ["/health/live", "/health/ready", "/metrics", "/api/v1/openapi.json", "/api/v1/docs"] {
        place.client.get(path).send().await.assert_status_is_ok();
    }
    let page = place.client.get("/api/v1/docs").send().await.0.into_body().into_string().await.expect("text");
    let elsewhere = ["src=\"http", "href=\"http", "src='http", "@import"];
    assert!(!elsewhere.iter().any(|part| page.contains(part)), "the page needs nothing from elsewhere");
    place.client.head("/api/v1/runs").header("authorization", format!("Bearer {TOKEN}")).send().await.assert_status_is_ok();
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_are_taken_are_told_to_come_back() {
    let place = Place::with(LimitsConfig { requests: 1, ..LimitsConfig::default() }).await;
    place.register("krowoc: v1\nname: note\nsteps:\n  a:\n    noop: 1\n").await;
    let waits = json!({"workflow": "note"});
    let first = place.post("/runs?wait=2").body_json(&waits).send();
    let second = async {
        // The first is under way once its run is there.
        while sqlx::query_scalar::<_, i64>("SELECT count(*) FROM krowoc.run").fetch_one(place.engine.pool()).await.expect("counted") == 0 {
            tokio::task::yield_now().await;
        }
        place.get("/runs").send().await
    };
    let (first, second) = tokio::join!(first, second);
    first.assert_status(StatusCode::ACCEPTED);
    second.assert_status(StatusCode::SERVICE_UNAVAILABLE);
    second.assert_header("retry-after", "1");
    assert_eq!(code(&value(second).await), "overloaded");
    place.get("/runs").send().await.assert_status_is_ok();
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_a_503_without_a_word_of_the_driver() {
    let place = Place::new().await;
    place.engine.pool().close().await;
    let answer = place.get("/runs").send().await;
    answer.assert_status(StatusCode::SERVICE_UNAVAILABLE);
    let problem = value(answer).await;
    assert_eq!(code(&problem), "unavailable");
    assert!(!problem.to_string().contains("pool"), "{problem}");
}
