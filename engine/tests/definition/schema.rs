//! The published schema: valid, stable, and of one mind with the compiler.

use crate::kinds::{compiled, kinds};
use krowoc_engine::definition::{Source, json_schema};
use serde_json::Value;

fn accepts(text: &str) -> bool {
    let validator = jsonschema::draft202012::new(&json_schema(&kinds())).expect("a schema");
    validator.is_valid(Source::parse("x.yaml", text).expect("YAML").json())
}

#[test]
fn it_is_a_valid_schema_and_always_the_same_text() {
    let schema = json_schema(&kinds());
    jsonschema::meta::validate(&schema).expect("valid against its own schema");
    assert_eq!(schema.to_string(), json_schema(&kinds()).to_string());
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

#[test]
fn every_key_is_described() {
    fn walk(at: &str, schema: &Value, missing: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            // What kinds bring is theirs to describe.
            if property.get("description").is_none()
                && property["$ref"].as_str().is_none_or(|r| !r.contains("/kind_") && !r.contains("/defaults_"))
            {
                missing.push(format!("{at}.{name}"));
            }
        }
    }
    let schema = json_schema(&kinds());
    let mut missing = Vec::new();
    walk("", &schema, &mut missing);
    for (name, def) in schema["$defs"].as_object().expect("definitions") {
        if !name.starts_with("kind_") && !name.starts_with("defaults_") {
            walk(name, def, &mut missing);
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn editors_and_the_compiler_agree() {
    let head = "krowoc: v1\nname: t\n";
    for (text, right) in [
        ("steps: {a: {transform: 1}}", true),
        ("steps: {a: {llm: {model: m, temperature: '${{ input.t }}'}}}", true),
        ("steps: {a: {llm: {model: m, temperature: hot}}}", false),
        ("steps: {a: {llm: {model: m, messages: [{role: user, content: x}]}}}", true),
        ("steps: {a: {llm: {model: m, messages: [{role: nobody, content: x}]}}}", false),
        ("defaults: {llm: {model: m}}\nsteps: {a: {llm: {}}}", true),
        ("defaults: {llm: {modell: m}}\nsteps: {a: {llm: {}}}", false),
        ("steps: {a: {}}", false),
        ("steps: {a: {transform: 1, http: {url: 'http://x'}}}", false),
        ("steps: {a-b: {transform: 1}}", false),
        ("steps: {a: {transform: 1, timeout: {attempt: 5 minutes}}}", false),
        ("steps: {a: {transform: 1, timeout: {attempt: 1h30m}}}", true),
        ("steps: {a: {map: {over: [1], steps: {b: {transform: 1}}}}}", true),
        ("steps: {a: {map: {over: [1], steps: {b: {}}}}}", false),
        ("steps: {a: {map: {over: [1], tolerate: 10%, steps: {b: {transform: 1}}}}}", true),
        ("steps: {a: {map: {over: [1], tolerate: 10, steps: {b: {transform: 1}}}}}", true),
        ("steps: {a: {map: {over: [1], tolerate: 1000%, steps: {b: {transform: 1}}}}}", false),
        ("steps: {a: {when: 'x', transform: 1}}", false),
        ("steps: {a: {wait: {for: 30s}}}", true),
        ("triggers: []\nsteps: {a: {transform: 1}}", false),
    ] {
        let text = format!("{head}{text}\n");
        assert_eq!(accepts(&text), right, "the schema: {text}");
        assert_eq!(compiled(&text).is_ok(), right, "the compiler: {text}");
    }
}
