//! Guarantee: every workflow that ships is valid and does what the README says of it, carried out by the real engine on PostgreSQL.

mod support;

use krowoc_engine::{
    commands::{Redrive, redrive},
    definition::{PromptFolder, Source, compile},
    error::ErrorClass,
    queries::{
        attempts,
        dead_letters::{self, LetterFilter, LetterState},
        steps::{self, StepStatus},
    },
};
use krowoc_steps::StepsConfig;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs};
use support::{Bench, root};

fn data(path: &str) -> Value {
    let path = root().join("examples/data").join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if path.extension().is_some_and(|e| e == "json") { serde_json::from_str(&text).expect("JSON") } else { text.into() }
}

fn with_model(mut input: Value) -> Value {
    input["model"] = json!("sim/instant");
    input
}

#[test]
fn every_workflow_that_ships_has_its_test_here_and_its_place_in_the_readme() {
    let mut names: Vec<String> = fs::read_dir(root().join("workflows"))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    assert_eq!(names, ["extract-invoices.yaml", "flaky-provider.yaml", "summarize-document.yaml", "support-triage.yaml"]);
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    for name in names {
        assert!(readme.contains(&format!("workflows/{name}")), "the README does not show {name}");
    }
}

#[test]
fn every_example_of_the_language_is_valid() {
    let text = fs::read_to_string(root().join("docs/language.md")).expect("the document");
    let blocks: Vec<&str> = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    assert!(blocks.len() > 10, "{} examples", blocks.len());
    let kinds = krowoc_steps::kinds(StepsConfig::default());
    let prompts = PromptFolder::read(&root().join("workflows/prompts")).expect("prompts");
    for block in blocks {
        let whole = if block.starts_with("krowoc:") { block.to_owned() } else { format!("krowoc: v1\nname: example\n{block}") };
        let compiled = Source::parse("docs/language.md", &whole).and_then(|source| compile(&source, &kinds, &prompts));
        assert!(compiled.is_ok(), "{block}\n{:#?}", compiled.err());
    }
}

#[test]
fn every_key_of_the_language_is_explained() {
    let text = fs::read_to_string(root().join("docs/language.md")).expect("the document");
    let schema = krowoc_engine::definition::json_schema(&krowoc_steps::kinds(StepsConfig::default()));
    let keys = |at: &str| schema.pointer(at).and_then(Value::as_object).unwrap_or_else(|| panic!("no {at}")).keys();
    let all = ["/properties", "/$defs/Step/properties", "/$defs/MapStep/properties", "/$defs/WaitStep/properties"];
    let kinds = ["llm", "http"].map(|kind| format!("/$defs/kind_{kind}/properties"));
    for at in all.into_iter().chain(kinds.iter().map(String::as_str)) {
        let unexplained: Vec<_> = keys(at).filter(|key| !text.contains(&format!("`{key}`"))).collect();
        assert!(unexplained.is_empty(), "docs/language.md does not explain {unexplained:?} of {at}");
    }
    // Those of steps that this version does not have.
    let later = ["budget_exceeded", "rejected", "expired", "child_failed"];
    let classes = krowoc_engine::ErrorClass::ALL.into_iter().map(krowoc_engine::ErrorClass::name);
    let unexplained: Vec<_> = classes.filter(|class| !later.contains(class) && !text.contains(&format!("`{class}`"))).collect();
    assert!(unexplained.is_empty(), "docs/language.md does not explain the classes {unexplained:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_document_is_split_read_part_by_part_and_summarized() {
    let bench = Bench::new().await;
    let run = bench.start("summarize-document", with_model(json!({"text": data("gpl-3.txt"), "title": "the GNU GPL, version 3"}))).await;
    let output = bench.succeeded(run.id).await;
    let parts = output["parts"].as_u64().expect("a number");
    assert!((12..30).contains(&parts), "{parts} parts");
    let summary = output["summary"].as_str().expect("a text");
    assert!(summary.to_lowercase().contains("license") && summary.len() > 100, "{summary}");
    let mut conn = bench.conn().await;
    let notes = steps::items(&mut conn, &bench.scope, run.id, &run.dag, &"read".parse().expect("a path"), None, 100).await.expect("items");
    assert_eq!(notes.len() as u64, parts);
    let calls = attempts::attempts(&mut conn, &bench.scope, run.id, &run.dag, None, 1000).await.expect("attempts");
    let simulated = calls.iter().filter_map(|a| a.usage.as_ref()).filter(|u| u.simulated).count() as u64;
    assert_eq!(simulated, parts + 1, "one call for each part and one for the summary");
    drop(conn);
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_takes_the_branch_of_its_kind_and_no_other() {
    let bench = Bench::new().await;
    let run = bench.start("support-triage", with_model(data("support-message.json"))).await;
    let output = bench.succeeded(run.id).await;
    let category = output["category"].as_str().expect("a category").to_owned();
    let taken = if category == "other" { "hand_over" } else { &category };
    let mut conn = bench.conn().await;
    let all = steps::steps(&mut conn, &bench.scope, run.id, &run.dag).await.expect("steps");
    let status: BTreeMap<&str, StepStatus> = all.iter().map(|s| (s.id.as_str(), s.status)).collect();
    for branch in ["billing", "technical", "hand_over"] {
        let expected = if branch == taken { StepStatus::Succeeded } else { StepStatus::Skipped };
        assert_eq!(status[branch], expected, "{branch}, category {category}");
    }
    assert_eq!((status["draft"], status["check"]), (StepStatus::Succeeded, StepStatus::Succeeded));
    assert!(!output["draft"].as_str().expect("a draft").is_empty());
    assert!(output["check"]["answers_the_message"].is_boolean(), "{output}");
    drop(conn);
    bench.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_invoices_becomes_records_that_are_checked_and_totalled() {
    let bench = Bench::new().await;
    let run = bench.start("extract-invoices", with_model(data("invoices.json"))).await;
    let output = bench.succeeded(run.id).await;
    let invoices = output["invoices"].as_array().expect("invoices");
    assert_eq!((invoices.len(), &output["unread"], &output["to_be_checked"]), (6, &json!(0), &json!(["dupont-f26-118.txt"])), "{output:#}");
    assert_eq!(
        invoices[0]["invoice"],
        json!({"invoice_number": "INV-2031", "supplier": "Acme Tools GmbH", "date": "2026-03-14", "currency": "EUR",
               "net": 242.5, "tax": 46.08, "total": 288.58})
    );
    let totals: BTreeMap<&str, f64> = output["totals"]
        .as_array()
        .expect("totals")
        .iter()
        .map(|t| (t["currency"].as_str().expect("a currency"), t["total"].as_f64().expect("a number")))
        .collect();
    assert_eq!(totals, BTreeMap::from([("EUR", 1768.58), ("GBP", 948.0), ("SEK", 9300.0), ("USD", 1163.0)]));
    bench.done().await;
}

#[test]
fn the_input_of_the_invoices_is_the_folder_as_it_is() {
    let mut names: Vec<String> = fs::read_dir(root().join("examples/data/invoices"))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let files: Vec<Value> = names.iter().map(|name| json!({"name": name, "text": data(&format!("invoices/{name}"))})).collect();
    assert_eq!(data("invoices.json"), json!({"files": files}), "make examples/data/invoices.json anew, as the README shows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_day_is_retried_waited_out_dead_lettered_and_redriven() {
    let bench = Bench::new().await;
    let run = bench.start("flaky-provider", json!({"question": "What does durable mean for a call that costs money?"})).await;
    assert_eq!(bench.ended(run.id).await, "failed");
    let mut conn = bench.conn().await;
    let made = |all: &[attempts::AttemptView], path: &str| -> Vec<String> {
        all.iter().filter(|a| a.path == path).map(|a| a.status.to_string()).collect()
    };
    let before = attempts::attempts(&mut conn, &bench.scope, run.id, &run.dag, None, 1000).await.expect("attempts");
    assert_eq!(made(&before, "overloaded"), ["failed", "failed", "succeeded"]);
    assert_eq!(made(&before, "throttled"), ["deferred", "succeeded"]);
    assert_eq!(made(&before, "down"), ["failed", "failed", "failed"]);
    let letters = dead_letters::list(&mut conn, &bench.scope, &LetterFilter::default(), None, 10).await.expect("letters");
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((letter.path.as_str(), letter.state, letter.class), ("down", LetterState::Open, ErrorClass::ServerError));

    let done = redrive(&mut conn, &bench.engine.registry().versions, &bench.scope, &[letter.id]).await.expect("redriven");
    assert!(matches!(done[0].outcome, Redrive::Redriven), "{done:?}");
    let output = bench.succeeded(run.id).await;
    assert_eq!(output["answers"].as_array().map(Vec::len), Some(3));
    let after = attempts::attempts(&mut conn, &bench.scope, run.id, &run.dag, None, 1000).await.expect("attempts");
    assert_eq!(made(&after, "down"), ["failed", "failed", "failed", "succeeded"]);
    for kept in ["overloaded", "throttled"] {
        assert_eq!(made(&after, kept), made(&before, kept), "{kept} was carried out again");
    }
    drop(conn);
    bench.done().await;
}
