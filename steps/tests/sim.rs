//! Guarantee: the simulator is repeatable, keeps to schemas, to its times and to its failures, and always says that it is one.

mod support;

use krowoc_engine::ErrorClass;
use krowoc_steps::{StepsConfig, kinds};
use serde_json::{Value, json};
use std::time::Duration;
use support::*;
use tokio::time::Instant;

const INVOICE: &str = "Extract the invoice.\n\nAcme Tooling Ltd\nInvoice No.: INV-2031\nDate: 1 March 2024\nDue date: 31.03.2024\nBilled to Jane \
    Doe (jane@acme.example)\nTotal: EUR 1,234.50\n";
const STORY: &str = "Summarize this.\n\nThe licence protects the freedom of all users of the software. Copies of the software may be sold or \
    given away. It rained on Tuesday in the north of Scotland. The users of the software keep the freedom to change the software. Every \
    copy of the software must carry the licence. The licence of the software holds for every user of a copy.";

fn ask(model: &str, text: &str) -> Value {
    json!({"model": model, "messages": [{"role": "system", "content": "You are brief."}, {"role": "user", "content": text}]})
}

async fn answer(model: &str, text: &str, schema: Option<Value>) -> Value {
    let context = schema.map_or_else(context, context_with);
    let result =
        execute(&kinds(StepsConfig::default()), "llm", &context, ask(model, text)).await.unwrap_or_else(|e| panic!("{model}: {e}"));
    let usage = result.usage.as_ref().expect("usage");
    assert!(usage.simulated && usage.model.starts_with("sim/") && usage.output_tokens > 0, "{usage:?}");
    output(&result)
}

fn schemas() -> Vec<Value> {
    let node = json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}});
    vec![
        json!({"type": "object", "required": ["kind", "risk"], "properties": {"kind": {"enum": ["contract", "invoice"]}, "risk": {"type": "number", "minimum": 0, "maximum": 1}}}),
        json!({"type": "array", "items": {"type": "object", "required": ["quote", "issue"]}}),
        json!({"type": "array", "minItems": 5, "maxItems": 5, "uniqueItems": true, "items": {"enum": ["a", "b", "c", "d", "e"]}}),
        json!({"type": "array", "minItems": 3, "items": {"type": "integer"}, "contains": {"const": 7}}),
        json!({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false, "minItems": 2}),
        json!({"type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 6}),
        json!({"type": "number", "minimum": -3, "maximum": -1, "multipleOf": 0.5}),
        json!({"type": "integer", "minimum": 10, "maximum": 20, "multipleOf": 7}),
        json!({"type": "string", "minLength": 30, "maxLength": 32}),
        json!({"type": "string", "pattern": "^[A-Z]{2}-\\d{4}(-x)?$"}),
        json!({"type": "string", "pattern": "^(foo|bar)+$", "maxLength": 6}),
        json!({"type": "object", "additionalProperties": false, "required": ["a", "b", "c", "d", "e", "f", "g"], "properties": {
            "a": {"type": "string", "format": "date"}, "b": {"type": "string", "format": "date-time"}, "c": {"type": "string", "format": "email"},
            "d": {"type": "string", "format": "uri"}, "e": {"type": "string", "format": "uuid"}, "f": {"type": "string", "format": "ipv6"},
            "g": {"type": "string", "format": "duration"}}}),
        json!({"anyOf": [{"type": "null"}, {"type": "object", "required": ["x"], "properties": {"x": {"type": "boolean"}}}]}),
        json!({"oneOf": [{"type": "integer", "maximum": 5}, {"type": "integer", "minimum": 3}]}),
        json!({"allOf": [{"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}, {"required": ["b"], "properties": {"b": {"const": "x"}}}]}),
        json!({"$ref": "#/$defs/node", "$defs": {"node": node}}),
        json!({"type": "object", "minProperties": 3, "additionalProperties": {"type": "integer"}}),
        json!({"type": "object", "minProperties": 2, "patternProperties": {"^k_[a-z]+$": {"type": "boolean"}}, "additionalProperties": false}),
        json!({"type": "object", "required": ["id"], "maxProperties": 1, "properties": {"id": {"type": "string"}, "other": {"type": "string"}}}),
        json!({"type": ["string", "null"]}),
        json!({"const": {"fixed": [1, null]}}),
        json!({"type": "object", "required": ["kind"], "properties": {"kind": {"enum": ["a", "b"]}}, "if": {"properties": {"kind": {"const": "a"}}}, "then": {"required": ["x"]}, "else": {"required": ["y"]}}),
        json!({"type": "object", "required": ["lines"], "properties": {"lines": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["description", "quantity"], "properties": {"description": {"type": "string"}, "quantity": {"type": "integer", "minimum": 1}}}}}}),
        json!(true),
        json!({}),
    ]
}

#[tokio::test]
async fn every_answer_meets_its_schema_whatever_the_prompt_and_seed() {
    for schema in schemas() {
        let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema).expect("a schema");
        for seed in 0..12 {
            for text in [INVOICE, STORY, "", "x"] {
                let value = answer(&format!("sim/instant?seed={seed}"), text, Some(schema.clone())).await;
                assert!(validator.is_valid(&value), "{schema}: {value}");
            }
        }
    }
}

#[tokio::test]
async fn a_schema_that_nothing_meets_is_said_to_be_one() {
    for schema in [json!(false), json!({"type": "integer", "minimum": 2, "maximum": 1}), json!({"$ref": "#", "minLength": 1})] {
        let error =
            execute(&kinds(StepsConfig::default()), "llm", &context_with(schema), ask("sim/instant", "x")).await.expect_err("no value");
        assert_eq!(error.class, ErrorClass::InvalidRequest, "{error}");
    }
}

#[tokio::test]
async fn the_same_prompt_and_seed_give_the_same_answer_and_another_seed_another() {
    let schema = json!({"type": "object", "required": ["score", "id"], "properties": {"score": {"type": "number"}, "id": {"type": "string", "format": "uuid"}}});
    let first = answer("sim/instant?seed=1", STORY, Some(schema.clone())).await;
    assert_eq!(first, answer("sim/instant?seed=1", STORY, Some(schema.clone())).await);
    assert_ne!(first, answer("sim/instant?seed=2", STORY, Some(schema.clone())).await);
    assert_ne!(first, answer("sim/instant?seed=1", INVOICE, Some(schema)).await);
}

#[tokio::test]
async fn fields_are_filled_from_the_prompt_where_it_has_something_fitting() {
    let schema = json!({"type": "object", "required": ["vendor", "invoice_number", "date", "due_date", "total", "currency", "email", "kind"], "properties": {
        "vendor": {"type": "string"}, "invoice_number": {"type": "string"}, "date": {"type": "string", "format": "date"},
        "due_date": {"type": "string", "format": "date"}, "total": {"type": "number"}, "currency": {"type": "string"}, "email": {"type": "string"},
        "kind": {"enum": ["contract", "invoice", "complaint"]}}});
    let expected = json!({
        "vendor": "Acme Tooling Ltd", "invoice_number": "INV-2031", "date": "2024-03-01", "due_date": "2024-03-31", "total": 1234.5,
        "currency": "EUR", "email": "jane@acme.example", "kind": "invoice",
    });
    assert_eq!(answer("sim/instant", INVOICE, Some(schema)).await, expected);
}

#[tokio::test]
async fn a_list_takes_the_rows_of_a_table_in_the_prompt() {
    let schema = json!({"type": "array", "items": {"type": "object", "required": ["description", "quantity", "amount"], "properties": {
        "description": {"type": "string"}, "quantity": {"type": "integer"}, "amount": {"type": "number"}}}});
    let text = "Item | Qty | Amount\nCopy paper | 20 | 90.00\nToner | 2 | 122.50\n\nTotal: 212.50 EUR";
    let expected = json!([
        {"description": "Copy paper", "quantity": 20, "amount": 90},
        {"description": "Toner", "quantity": 2, "amount": 122.5},
    ]);
    assert_eq!(answer("sim/instant", text, Some(schema)).await, expected);
}

#[tokio::test]
async fn text_is_extracted_from_the_prompt_and_labelled() {
    let output = answer("sim/instant", STORY, None).await;
    assert_eq!((&output["simulated"], &output["model"], &output["finish_reason"]), (&json!(true), &json!("sim/instant"), &json!("stop")));
    let text = output["text"].as_str().expect("text");
    let text = text.strip_prefix("[simulated] ").expect("a mark");
    assert!(text.contains("software") && !text.contains("rained") && !text.contains("Summarize"), "{text}");
    assert!(text.split_inclusive(". ").all(|sentence| STORY.contains(sentence.trim())), "{text}");
}

#[tokio::test]
async fn the_mark_of_one_step_is_not_repeated_in_the_answer_of_the_next() {
    let first = answer("sim/instant", STORY, None).await["text"].as_str().expect("text").to_owned();
    let notes = format!("Summarize the notes.\n\n{first}\n\n{}", first.replace("software", "program"));
    let text = answer("sim/instant", &notes, None).await["text"].as_str().expect("text").to_owned();
    assert!(text.starts_with("[simulated] ") && text.matches("simulated").count() == 1, "{text}");
    let schema = json!({"type": "object", "required": ["summary"], "properties": {"summary": {"type": "string"}}});
    let object = answer("sim/instant", &notes, Some(schema)).await;
    assert!(!object.to_string().contains("simulated") && !object.to_string().contains("Summarize"), "{object}");
}

#[tokio::test]
async fn a_token_limit_is_kept_and_an_answer_that_it_cuts_is_an_error() {
    let kinds = kinds(StepsConfig::default());
    let mut config = ask("sim/instant", STORY);
    config["max_output_tokens"] = 25.into();
    let result = execute(&kinds, "llm", &context(), config.clone()).await.expect("a short summary");
    let text = output(&result)["text"].as_str().expect("text").to_owned();
    assert!(text.starts_with("[simulated] The licence") && text.len() <= 100, "{text}");
    assert!(result.usage.expect("usage").output_tokens <= 25);
    config["max_output_tokens"] = 1.into();
    let error = execute(&kinds, "llm", &context_with(json!({"type": "string", "minLength": 100})), config).await.expect_err("cut");
    assert_eq!((error.class, error.usage.expect("usage").output_tokens), (ErrorClass::TooLarge, 1));
}

#[tokio::test(start_paused = true)]
async fn latency_jitter_and_token_rate_take_their_time() {
    let took = async |model: &str| {
        let start = Instant::now();
        let context = context();
        let result = execute(&kinds(StepsConfig::default()), "llm", &context, ask(model, STORY)).await.expect("an answer");
        (start.elapsed(), result.usage.expect("usage").output_tokens)
    };
    assert_eq!(took("sim/instant").await.0, Duration::ZERO);
    assert_eq!(took("sim/instant?latency=200ms").await.0, Duration::from_millis(200));
    let (time, tokens) = took("sim/instant?latency=1s&tokens_per_s=10").await;
    let expected = 1.0 + tokens as f64 / 10.0;
    assert!(tokens > 0 && (time.as_secs_f64() - expected).abs() < 0.002, "{time:?} for {tokens} tokens");
    let mut times = Vec::new();
    for seed in 0..20 {
        times.push(took(&format!("sim/instant?latency=1s&jitter=100ms&seed={seed}")).await.0);
    }
    assert!(times.iter().all(|t| (900..=1_101).contains(&t.as_millis())), "{times:?}");
    assert!(times.iter().any(|t| t != &times[0]), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_longer_than_the_idle_timeout_times_out_as_a_providers_would() {
    let kinds = kinds(StepsConfig::default());
    let mut context = context();
    context.idle_timeout = Some(Duration::from_secs(2));
    for model in ["sim/instant?latency=1h", "sim/instant?latency=1s&tokens_per_s=1", "sim/instant?tokens_per_s=1"] {
        let start = Instant::now();
        let error = execute(&kinds, "llm", &context, ask(model, STORY)).await.expect_err("too slow");
        assert_eq!((error.class, start.elapsed()), (ErrorClass::Timeout, Duration::from_secs(2)), "{model}");
        assert_eq!(error.details, Some(json!({"simulated": true})));
    }
    execute(&kinds, "llm", &context, ask("sim/instant?latency=2s", STORY)).await.expect("in time");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_calls_wait_at_once_for_the_time_of_one() {
    let kinds = kinds(StepsConfig::default());
    let start = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..10_000 {
        let kinds = kinds.clone();
        calls.spawn(async move { execute(&kinds, "llm", &context(), ask("sim/instant?latency=30s", &format!("Call {n}."))).await.is_ok() });
    }
    let outcomes = calls.join_all().await;
    assert!(outcomes.len() == 10_000 && outcomes.into_iter().all(|ok| ok));
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test]
async fn failures_come_as_ordered() {
    let kinds = kinds(StepsConfig::default());
    let attempt = async |model: &str, text: &str, attempt: u16| {
        let mut context = context();
        context.attempt = attempt.into();
        execute(&kinds, "llm", &context, ask(model, text)).await
    };
    let model = "sim/instant?fail_first=2&error=rate_limited&retry_after=2s";
    for n in 1..=2 {
        let error = attempt(model, STORY, n).await.expect_err("one of the first two");
        assert_eq!((error.class, error.retry_after), (ErrorClass::RateLimited, Some(Duration::from_secs(2))));
        assert!(error.message.contains("simulated"));
    }
    attempt(model, STORY, 3).await.expect("the third succeeds");

    let mut failed = 0;
    for n in 0..1_000 {
        let text = format!("Call {n}.");
        let first = attempt("sim/instant?error_rate=0.3", &text, 1).await.err().map(|e| e.class);
        assert_eq!(first, attempt("sim/instant?error_rate=0.3", &text, 1).await.err().map(|e| e.class), "repeatable");
        failed += usize::from(first == Some(ErrorClass::Overloaded));
    }
    assert!((250..350).contains(&failed), "{failed} of 1000 failed");
    let mut later = 0;
    for n in 1..=50 {
        later += usize::from(attempt("sim/instant?error_rate=0.5", STORY, n).await.is_ok());
    }
    assert!((10..40).contains(&later), "another attempt has another chance: {later} of 50");
}

#[tokio::test]
async fn an_unknown_parameter_is_refused_with_a_suggestion() {
    let error = execute(&kinds(StepsConfig::default()), "llm", &context(), ask("sim/instant?latencey=1s", "x")).await.expect_err("unknown");
    assert_eq!(error.class, ErrorClass::InvalidRequest);
    assert!(error.message.contains("did you mean `latency`?"), "{error}");
}
