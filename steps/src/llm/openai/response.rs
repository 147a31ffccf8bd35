//! The answer on the wire. Unknown fields are let pass; an end that is missing or unknown never is: what is not known to end a
//! whole answer may have cut one.

use super::errors;
use crate::{
    json,
    llm::model::{Answer, FinishReason},
    secrets::Secrets,
};
use krowoc_engine::{
    ErrorClass,
    executor::{StepError, Usage},
};
use reqwest::header::HeaderMap;
use serde_json::Value;

/// So much of an unknown reason goes into its error.
const REASON: usize = 50;

/// What a `finish_reason` says of the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Whole,
    Length,
    Refused,
    Tool,
    /// None that is known to end a whole answer: `error`, `abort`, `insufficient_system_resource`, `network_error`, ….
    Unknown,
}

impl End {
    /// The words of OpenAI and of the servers that speak its format; where they pass a model's own word on, that of Anthropic,
    /// Gemini and Cohere too. A server that is missing here fails loudly; the opposite would keep half an answer.
    fn of(reason: &str) -> Self {
        match reason.to_ascii_lowercase().as_str() {
            // OpenAI; Together; text-generation-inference; Anthropic through gateways; Cohere.
            "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" | "complete" => Self::Whole,
            // OpenAI; Mistral; Anthropic and Gemini; Zhipu.
            "length" | "model_length" | "max_tokens" | "model_context_window_exceeded" => Self::Length,
            // OpenAI; Anthropic; Gemini; Zhipu.
            "content_filter" | "refusal" | "safety" | "sensitive" => Self::Refused,
            "tool_calls" | "function_call" | "tool_use" => Self::Tool,
            _ => Self::Unknown,
        }
    }
}

/// The answer in a body that came with status 200.
pub(super) fn answer(body: Value, headers: &HeaderMap, wrapped: bool, secrets: &Secrets) -> Result<Answer, StepError> {
    if body.get("error").is_some_and(|e| !e.is_null()) {
        return Err(errors::inside_ok(&body, headers, secrets));
    }
    let usage = usage(&body, headers, secrets);
    let incomplete = |what: &str| {
        let mut error = StepError::new(ErrorClass::ServerError, format!("the answer is not complete: {what}"));
        error.usage = Some(usage.clone());
        error
    };
    let choice = body.pointer("/choices/0").ok_or_else(|| incomplete("it has no choice"))?;
    let reason = choice.get("finish_reason").and_then(Value::as_str).filter(|r| !r.is_empty());
    let reason = reason.ok_or_else(|| incomplete("it has no finish_reason"))?;
    let message = choice.get("message").ok_or_else(|| incomplete("its choice has no message"))?;
    let refusal = message.get("refusal").and_then(Value::as_str).filter(|r| !r.is_empty()).map(Into::into);
    let content = text(message.get("content"));
    let finish = match End::of(reason) {
        End::Refused => FinishReason::Refused(refusal),
        _ if refusal.is_some() => FinishReason::Refused(refusal),
        End::Whole => FinishReason::Complete(reason.into()),
        End::Length => FinishReason::Length,
        End::Tool => {
            let mut error = StepError::new(ErrorClass::InvalidRequest, "the model asked for a tool, and an llm step runs none");
            error.usage = Some(usage);
            return Err(error);
        }
        End::Unknown => return Err(incomplete(&format!("the server ended it with `{}`", json::excerpt(reason, REASON)))),
    };
    let text = match (&finish, content) {
        (FinishReason::Complete(_), None) => return Err(incomplete("its message has no content")),
        (_, content) => content.unwrap_or_default(),
    };
    let text = if wrapped { unwrap(text) } else { text };
    Ok(Answer { text, finish, usage })
}

/// Text, or the text parts of a list of parts.
fn text(content: Option<&Value>) -> Option<String> {
    match content? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()),
        _ => None,
    }
}

/// Undoes the wrapping of the request; servers that ignored `response_format` did not wrap.
fn unwrap(text: String) -> String {
    match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(map)) if map.len() == 1 && map.contains_key("value") => map["value"].to_string(),
        _ => text,
    }
}

/// Input includes what was cached, output includes reasoning: OpenAI counts as the engine does.
fn usage(body: &Value, headers: &HeaderMap, secrets: &Secrets) -> Usage {
    let count = |pointer: &str| body.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    Usage {
        provider: "openai".into(),
        model: body.get("model").and_then(Value::as_str).unwrap_or_default().into(),
        input_tokens: count("/usage/prompt_tokens"),
        cached_input_tokens: count("/usage/prompt_tokens_details/cached_tokens"),
        output_tokens: count("/usage/completion_tokens"),
        reasoning_tokens: count("/usage/completion_tokens_details/reasoning_tokens"),
        request_id: errors::request_id(headers, secrets).or_else(|| body.get("id").and_then(Value::as_str).map(Into::into)),
        simulated: false,
        raw: body.get("usage").filter(|usage| !usage.is_null()).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ended(reason: Value) -> Result<Answer, StepError> {
        let body = json!({
            "choices": [{"message": {"content": "half an ans"}, "finish_reason": reason}],
            "usage": {"completion_tokens": 3},
        });
        answer(body, &HeaderMap::new(), false, &Secrets::default())
    }

    #[test]
    fn only_an_end_that_is_known_makes_an_answer_whole() {
        for reason in ["stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "COMPLETE"] {
            let answer = ended(reason.into()).unwrap_or_else(|e| panic!("{reason}: {e}"));
            assert_eq!(answer.finish, FinishReason::Complete(reason.into()));
        }
        for reason in ["length", "model_length", "max_tokens", "MAX_TOKENS", "model_context_window_exceeded"] {
            assert_eq!(ended(reason.into()).expect("an end").finish, FinishReason::Length, "{reason}");
        }
        for reason in ["content_filter", "refusal", "SAFETY", "sensitive"] {
            assert_eq!(ended(reason.into()).expect("an end").finish, FinishReason::Refused(None), "{reason}");
        }
    }

    #[test]
    fn an_unknown_or_missing_end_may_be_tried_again_names_itself_and_keeps_its_cost() {
        for reason in ["insufficient_system_resource", "error", "abort", "cancelled", "network_error", "null", "pause_turn", "", "new"] {
            let error = ended(reason.into()).expect_err(reason);
            assert_eq!((error.class, error.usage.expect("usage").output_tokens), (ErrorClass::ServerError, 3), "{reason}");
            let named = if reason.is_empty() { "no finish_reason" } else { reason };
            assert!(error.message.contains(named), "{}", error.message);
        }
        assert_eq!(ended(Value::Null).expect_err("no end").class, ErrorClass::ServerError);
    }

    #[test]
    fn a_call_of_a_tool_is_no_answer() {
        for reason in ["tool_calls", "function_call", "tool_use"] {
            assert_eq!(ended(reason.into()).expect_err(reason).class, ErrorClass::InvalidRequest);
        }
    }
}
