//! Guarantee: what can be known to fail before a run starts is said when the file is validated, at its place, with advice; keys are
//! not asked for, since files are validated on machines without any.

use krowoc_engine::definition::{Problem, PromptMessage, PromptSource, PromptVersion, Source, compile};
use krowoc_steps::{StepsConfig, kinds};
use serde_json::json;

struct Prompts;

impl PromptSource for Prompts {
    fn resolve(&self, reference: &str) -> Result<PromptVersion, Problem> {
        let model = match reference {
            "greet" => None,
            "greet@sim" => Some("sim/instant".to_owned()),
            "greet@typo" => Some("smi/instant".to_owned()),
            _ => return Err(Problem::new("unknown_prompt", "", format!("no prompt `{reference}`"))),
        };
        Ok(PromptVersion {
            name: "greet".into(),
            version: 1,
            messages: vec![PromptMessage { role: "user".into(), content: "Greet {{ name }} in {{ tone }}.".into() }],
            variables: [("name".to_owned(), json!({"type": "string"})), ("tone".to_owned(), json!({"default": "a calm tone"}))].into(),
            model,
            ..PromptVersion::default()
        })
    }
}

/// The problems of a workflow with one step, as code, pointer and help.
fn problems(step: &str) -> Vec<(String, String, String)> {
    let text = format!("krowoc: v1\nname: test\nsteps:\n  one:\n    {step}\n");
    let source = Source::parse("test.yaml", &text).expect("YAML");
    match compile(&source, &kinds(StepsConfig::default()), &Prompts) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(|p| (p.code.into(), p.pointer, p.help.unwrap_or(p.message))).collect(),
    }
}

#[test]
fn what_is_right_has_no_problems_and_needs_no_key() {
    for step in [
        r#"llm: {model: openai/gpt-4.1, messages: [{role: user, content: "hi"}], temperature: 0, stop: END, options: {user: u}}"#,
        r#"llm: {model: "sim/fast?latency=200ms&seed=7", prompt: greet, vars: {name: "${{ run.id }}"}}"#,
        r#"llm: {prompt: "greet@sim", vars: {name: "${{ run.id }}"}}"#,
        r#"llm: {model: "sim/${{ run.id }}", prompt: greet, vars: {name: Jo, tone: 3}}"#,
        r#"http: {url: "https://example.com/${{ run.id }}", headers: {A: "${{ run.id }}", B: 2}, query: {a: [1, x]}, timeout: 30s}"#,
        r#"http: {method: POST, url: "http://localhost/", json: {a: "${{ run.id }}"}, expect_status: [200, 404], max_bytes: 10}"#,
        r#"http: {method: POST, url: "http://localhost/", json: null}"#,
        r#"transform: {a: [1, "${{ run.id }}"]}"#,
        r#"transform: "${{ run.id }}""#,
    ] {
        assert_eq!(problems(step), [], "{step}");
    }
}

#[test]
fn each_mistake_is_said_at_its_place_with_advice() {
    let ask = "messages: [{role: user, content: hi}]";
    for (step, code, pointer, help) in [
        (format!("llm: {{{ask}}}"), "missing_model", "", "provider/name"),
        (format!("llm: {{model: gpt-4.1, {ask}}}"), "invalid_model", "/model", "openai, sim"),
        (format!("llm: {{model: opnai/gpt-4.1, {ask}}}"), "unknown_provider", "/model", "`openai`"),
        (format!("llm: {{model: sim/fats, {ask}}}"), "unknown_model", "/model", "`fast`"),
        (format!("llm: {{model: 'sim/fast?latencey=1s', {ask}}}"), "unknown_parameter", "/model", "`latency`"),
        ("llm: {model: openai/x}".into(), "missing_prompt", "", "messages"),
        (format!("llm: {{model: openai/x, prompt: greet, vars: {{name: Jo}}, {ask}}}"), "conflicting_keys", "/messages", "not both"),
        (format!("llm: {{model: openai/x, vars: {{a: 1}}, {ask}}}"), "conflicting_keys", "/vars", "belong to"),
        (format!("llm: {{model: openai/x, options: {{stream: true}}, {ask}}}"), "reserved_option", "/options/stream", "whole answer"),
        ("llm: {prompt: 'greet@typo', vars: {name: J}}".into(), "unknown_provider", "/prompt", "`sim`"),
        ("llm: {prompt: greet, vars: {name: J}}".into(), "missing_model", "", "provider/name"),
        ("llm: {prompt: great}".into(), "unknown_prompt", "/prompt", "great"),
        ("llm: {model: openai/x, prompt: great}".into(), "unknown_prompt", "/prompt", "great"),
        ("llm: {model: openai/x, prompt: greet}".into(), "missing_variable", "", "`name: …`"),
        ("llm: {model: openai/x, prompt: greet, vars: {name: 3}}".into(), "type_mismatch", "/vars/name", "name"),
        ("llm: {model: openai/x, prompt: greet, vars: {name: J, toen: x}}".into(), "unknown_variable", "/vars/toen", "`tone`"),
        ("http: {url: 'https://x.test', json: 1}".into(), "body_without_method", "/json", "POST"),
        ("http: {method: POST, url: 'https://x.test', json: 1, form: {}}".into(), "conflicting_keys", "/form", "json and form"),
        ("http: {url: '/x'}".into(), "invalid_url", "/url", "no URL"),
        ("http: {url: 'ftp://x.test'}".into(), "invalid_url", "/url", "http"),
        ("http: {url: 'https://x.test', timeout: soon}".into(), "invalid_duration", "/timeout", "soon"),
        ("http: {url: 'https://x.test', headers: {'a b': 1}}".into(), "invalid_header", "/headers/a b", "a b"),
    ] {
        let kind = step.split(':').next().expect("a kind").to_owned();
        let found = problems(&step);
        let expected = format!("/steps/one/{kind}{pointer}");
        let [(found_code, found_pointer, found_help)] = &found[..] else { panic!("{step}: {found:?}") };
        assert_eq!((found_code.as_str(), found_pointer), (code, &expected), "{step}: {found:?}");
        assert!(found_help.contains(help), "{step}: {found_help}");
    }
}

#[test]
fn keys_that_do_not_exist_and_values_out_of_bounds_are_refused() {
    for step in [
        "llm: {model: openai/x, messages: [{role: user, content: hi}], temprature: 1}",
        "llm: {model: openai/x, messages: [{role: user, content: hi}], temperature: 3}",
        "llm: {model: openai/x, messages: [{role: robot, content: hi}]}",
        "llm: {model: openai/x, messages: []}",
        "http: {method: GET}",
        "http: {url: 'https://x.test', body_to: blob}",
        "http: {url: 'https://x.test', max_bytes: 33554433}",
        "http: {url: 'https://x.test', method: get}",
    ] {
        assert!(!problems(step).is_empty(), "{step}");
    }
}

#[test]
fn every_schema_is_closed_and_described_throughout() {
    for kind in kinds(StepsConfig::default()).iter() {
        let schema = kind.schema();
        assert!(schema["description"].is_string(), "{}", kind.name());
        let Some(properties) = schema["properties"].as_object() else { continue };
        assert_eq!(schema["additionalProperties"], false, "{}", kind.name());
        for (name, property) in properties {
            assert!(property["description"].is_string(), "{}.{name}: {property}", kind.name());
        }
        assert!(!schema.to_string().contains("$ref"), "{} stands alone", kind.name());
    }
}
