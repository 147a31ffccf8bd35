//! Guarantee: what serde writes is what the OpenAPI document says.

use super::*;
use chrono::DateTime;
use krowoc_engine::Payload;
use poem_openapi::types::{ToJSON, Type};
use serde_json::{Value, json};
use uuid::Uuid;

fn run() -> Run {
    Run {
        id: Uuid::nil(),
        workflow: "note".into(),
        version: 1,
        status: RunStatus::Failed,
        generation: 1,
        priority: -3,
        trigger: "api".into(),
        created_by: "api".into(),
        created_at: DateTime::UNIX_EPOCH,
        finished_at: None,
        idempotency_key: None,
        error: Some(RunError { message: "step `a` failed".into(), step: Some("a".into()), class: None }),
    }
}

/// Times are written in two ways that both are RFC 3339.
fn without_times(mut value: Value) -> Value {
    if let Value::Object(object) = &mut value {
        object.retain(|key, _| !key.ends_with("_at"));
    }
    value
}

#[track_caller]
fn same(view: &(impl serde::Serialize + ToJSON)) {
    let by_serde = serde_json::to_value(view).expect("written");
    assert_eq!(without_times(by_serde), without_times(view.to_json().expect("a value")));
}

#[test]
fn names_flattening_and_what_is_left_out_are_the_same_in_answers_and_in_the_document() {
    same(&run());
    let input = Json(Payload::from_json_text(r#"{"n":null}"#));
    same(&RunDetail { run: run(), input: input.clone(), output: None });
    same(&RunDetail { run: run(), input, output: Some(Json(Payload::null())) });
    same(&Failure { class: ErrorClass::RateLimited, message: "m".into(), retry_after_s: Some(0.5), details: None, usage: None });
    same(&DeadLetterReport {
        letter: Uuid::nil(),
        outcome: DeadLetterOutcome::AlreadyRedriven,
        run: None,
        path: Some("a".into()),
        code: None,
        error: None,
    });
}

#[test]
fn an_output_of_null_is_told_from_none() {
    let detail = |output| serde_json::to_value(RunDetail { run: run(), input: Json(Payload::null()), output }).expect("written");
    assert_eq!(detail(Some(Json(Payload::null()))).get("output"), Some(&json!(null)));
    assert_eq!(detail(None).get("output"), None);
}

#[test]
fn no_two_views_share_a_name() {
    let names = [
        <Attempt as Type>::name(),
        <DeadLetter as Type>::name(),
        <Event as Type>::name(),
        <Failure as Type>::name(),
        <LocatedProblem as Type>::name(),
        <crate::problem::Problem as Type>::name(),
        <Run as Type>::name(),
        <Step as Type>::name(),
        <Wait as Type>::name(),
        <Waiting as Type>::name(),
    ];
    let distinct: std::collections::HashSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
}
