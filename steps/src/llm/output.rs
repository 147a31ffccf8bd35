//! From an answer to the step's output: only whole answers, and with a schema only such as meet it.

use super::model::{Answer, FinishReason};
use crate::json;
use krowoc_engine::{
    ErrorClass,
    definition::{Schema, Violation},
    executor::{StepError, StepOutput, Usage},
};
use serde_json::{Value, json};

const EXCERPT: usize = 500;
/// So many violations go into the error; a model that missed more will not be helped by the rest.
const VIOLATIONS: usize = 20;
/// So many places of an answer are tried as the start of a JSON document.
const STARTS: usize = 64;

/// The step's output. Errors carry what the answer cost.
pub(super) fn take(schema: Option<&Value>, answer: Answer) -> Result<StepOutput, StepError> {
    let Answer { text, finish, usage } = answer;
    let finish = match finish {
        FinishReason::Complete(reason) => reason,
        FinishReason::Length => {
            let message = "the answer was cut at its token limit and was not kept; raise `max_output_tokens` or ask for less";
            return Err(spent(
                StepError::new(ErrorClass::TooLarge, message).details(json!({"answer": json::excerpt(&text, EXCERPT)})),
                usage,
            ));
        }
        FinishReason::Refused(words) => {
            let message =
                words.map_or("the model refused to answer".into(), |w| format!("the model refused: {}", json::excerpt(&w, EXCERPT)));
            return Err(spent(StepError::new(ErrorClass::Refused, message), usage));
        }
    };
    let Some(schema) = schema else {
        let mut output = json!({"text": text, "model": usage.model, "finish_reason": finish});
        if usage.simulated {
            output["simulated"] = true.into();
        }
        return Ok(StepOutput::json(&output)?.with_usage(usage));
    };
    match structured(schema, &text) {
        Ok(value) => Ok(StepOutput::json(&value)?.with_usage(usage)),
        Err(error) => Err(spent(error, usage)),
    }
}

fn spent(mut error: StepError, usage: Usage) -> StepError {
    error.usage = Some(usage);
    error
}

/// The JSON in an answer that meets the schema: the answer as a whole, else inside a code fence, else the first document in the
/// prose that does.
fn structured(schema: &Value, text: &str) -> Result<Value, StepError> {
    let schema = Schema::compile(schema).map_err(|violations| {
        StepError::new(ErrorClass::InvalidRequest, format!("the step's output schema is none: {}", listed(&violations)))
    })?;
    let mended = json::mend_surrogates(text);
    let mut nearest: Option<Vec<Violation>> = None;
    for candidate in candidates(&mended) {
        let violations = schema.check(&candidate);
        if violations.is_empty() {
            return Ok(candidate);
        }
        // A stray `[1]` in the prose has few violations too; the first candidate is the likeliest answer.
        nearest.get_or_insert(violations);
    }
    // A schema of plain text is met by plain text.
    let plain = Value::from(text.trim());
    if nearest.is_none() && schema.check(&plain).is_empty() {
        return Ok(plain);
    }
    let excerpt = json::excerpt(text, EXCERPT);
    Err(match nearest {
        Some(mut violations) => {
            violations.truncate(VIOLATIONS);
            StepError::new(ErrorClass::SchemaInvalid, format!("the answer misses the output schema: {}", listed(&violations)))
                .details(json!({"violations": violations, "answer": excerpt}))
        }
        None => StepError::new(ErrorClass::SchemaInvalid, "the answer holds no JSON, which the output schema asks for")
            .details(json!({"violations": [], "answer": excerpt})),
    })
}

fn candidates(text: &str) -> Vec<Value> {
    let text = without_thoughts(text).trim();
    if let Ok(value) = serde_json::from_str(text) {
        return vec![value];
    }
    let mut found: Vec<Value> = fenced(text).filter_map(|inside| serde_json::from_str(inside.trim()).ok()).collect();
    let mut at = 0;
    for _ in 0..STARTS {
        let Some(start) = text[at..].find(['{', '[']).map(|i| at + i) else { break };
        let mut documents = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        at = match documents.next() {
            Some(Ok(value)) => {
                found.push(value);
                start + documents.byte_offset()
            }
            _ => start + 1,
        };
    }
    found
}

/// Some servers leave a reasoning model's thoughts in front of its answer.
fn without_thoughts(text: &str) -> &str {
    match text.trim_start().strip_prefix("<think>").and_then(|rest| rest.split_once("</think>")) {
        Some((_, answer)) => answer,
        None => text,
    }
}

/// What stands inside each pair of code fences, without the language's name.
fn fenced(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").skip(1).step_by(2).map(|block| match block.split_once('\n') {
        Some((language, inside)) if !language.contains(['{', '[', '"']) => inside,
        _ => block,
    })
}

fn listed(violations: &[Violation]) -> String {
    let shown: Vec<String> = violations
        .iter()
        .take(3)
        .map(|v| if v.pointer.is_empty() { v.message.clone() } else { format!("{}: {}", v.pointer, v.message) })
        .collect();
    match violations.len() - shown.len() {
        0 => shown.join("; "),
        more => format!("{} (and {more} more)", shown.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Usage {
        Usage { provider: "test".into(), model: "m".into(), output_tokens: 7, ..Usage::default() }
    }

    fn answer(text: &str, finish: FinishReason) -> Answer {
        Answer { text: text.into(), finish, usage: usage() }
    }

    fn whole(text: &str) -> Answer {
        answer(text, FinishReason::Complete("stop".into()))
    }

    #[test]
    fn json_is_found_in_fences_and_prose() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}});
        for text in [
            r#"{"a": 1}"#,
            "```json\n{\"a\": 1}\n```",
            "Here you are:\n```\n{\"a\": 1}\n```\nAnything else?",
            "```{\"a\": 1}```",
            r#"As in [1] and {x}, the answer is {"a": 1}. Done {"#,
            r#"<think>{"a": "no"}</think>{"a": 1}"#,
            r#"First {"a": "wrong"}, then {"a": 1}"#,
        ] {
            let output = take(Some(&schema), whole(text)).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(output.output.as_str(), r#"{"a":1}"#, "{text}");
            assert_eq!(output.usage, Some(usage()));
        }
    }

    #[test]
    fn scalars_arrays_and_plain_text_meet_schemas_of_their_own() {
        assert_eq!(take(Some(&json!({"type": "array"})), whole("Sure: [1, 2]")).expect("array").output.as_str(), "[1,2]");
        assert_eq!(take(Some(&json!({"type": "string"})), whole(" plain ")).expect("text").output.as_str(), r#""plain""#);
        assert_eq!(take(Some(&json!({"type": "number"})), whole("4.5")).expect("number").output.as_str(), "4.5");
        assert_eq!(take(Some(&json!({"type": "string"})), whole(r#""\ud83d""#)).expect("mended").output.as_str(), "\"\u{FFFD}\"");
    }

    #[test]
    fn what_misses_the_schema_is_refused_with_the_violations_and_the_cost() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}});
        let error = take(Some(&schema), whole(r#"{"a": "x"}"#)).expect_err("a string is no integer");
        assert_eq!(error.class, ErrorClass::SchemaInvalid);
        assert!(error.message.contains("/a"), "{error}");
        let details = error.details.expect("details");
        assert_eq!(details["violations"][0]["pointer"], "/a");
        assert_eq!(details["answer"], r#"{"a": "x"}"#);
        assert_eq!(error.usage.expect("usage").output_tokens, 7);
        assert_eq!(take(Some(&schema), whole("no idea")).expect_err("prose").class, ErrorClass::SchemaInvalid);
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(take(Some(&schema), whole(&deep)).expect_err("too deep").class, ErrorClass::SchemaInvalid);
    }

    #[test]
    fn an_answer_that_was_cut_or_refused_is_no_output_with_or_without_a_schema() {
        for schema in [None, Some(json!({}))] {
            for (finish, class) in [(FinishReason::Length, ErrorClass::TooLarge), (FinishReason::Refused(None), ErrorClass::Refused)] {
                let error = take(schema.as_ref(), answer(r#"{"a": 1}"#, finish)).expect_err("not whole");
                assert_eq!(error.class, class);
                assert!(error.usage.is_some(), "its cost is kept");
            }
        }
    }

    #[test]
    fn text_comes_with_its_model_and_is_labelled_when_simulated() {
        let output = take(None, whole("hi")).expect("text").output;
        assert_eq!(output.as_str(), r#"{"text":"hi","model":"m","finish_reason":"stop"}"#);
        let mut simulated = whole("hi");
        simulated.usage.simulated = true;
        assert!(take(None, simulated).expect("text").output.as_str().ends_with(r#""simulated":true}"#));
    }
}
