//! The answer on the wire. Unknown fields and values are let pass; a missing end never is.

use super::errors;
use crate::{
    Secret,
    llm::model::{Answer, FinishReason},
};
use krowoc_engine::{
    ErrorClass,
    executor::{StepError, Usage},
};
use reqwest::header::HeaderMap;
use serde_json::Value;

/// The answer in a body that came with status 200.
pub(super) fn answer(body: Value, headers: &HeaderMap, wrapped: bool, key: Option<&Secret>) -> Result<Answer, StepError> {
    if body.get("error").is_some_and(|e| !e.is_null()) {
        return Err(errors::inside_ok(&body, headers, key));
    }
    let usage = usage(&body, headers);
    let incomplete = |what: &str| {
        let mut error = StepError::new(ErrorClass::ServerError, format!("the answer is not complete: {what}"));
        error.usage = Some(usage.clone());
        error
    };
    let choice = body.pointer("/choices/0").ok_or_else(|| incomplete("it has no choice"))?;
    let reason = choice.get("finish_reason").and_then(Value::as_str).ok_or_else(|| incomplete("it has no finish_reason"))?;
    let message = choice.get("message").ok_or_else(|| incomplete("its choice has no message"))?;
    let refusal = message.get("refusal").and_then(Value::as_str).filter(|r| !r.is_empty()).map(Into::into);
    let content = text(message.get("content"));
    let finish = match reason {
        "content_filter" => FinishReason::Refused(refusal),
        _ if refusal.is_some() => FinishReason::Refused(refusal),
        "length" | "max_tokens" => FinishReason::Length,
        "error" | "abort" | "cancelled" => return Err(incomplete(&format!("the server ended it with `{reason}`"))),
        "tool_calls" | "function_call" => {
            let mut error = StepError::new(ErrorClass::InvalidRequest, "the model asked for a tool, and an llm step runs none");
            error.usage = Some(usage);
            return Err(error);
        }
        other => FinishReason::Complete(other.into()),
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
fn usage(body: &Value, headers: &HeaderMap) -> Usage {
    let count = |pointer: &str| body.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    Usage {
        provider: "openai".into(),
        model: body.get("model").and_then(Value::as_str).unwrap_or_default().into(),
        input_tokens: count("/usage/prompt_tokens"),
        cached_input_tokens: count("/usage/prompt_tokens_details/cached_tokens"),
        output_tokens: count("/usage/completion_tokens"),
        reasoning_tokens: count("/usage/completion_tokens_details/reasoning_tokens"),
        request_id: errors::request_id(headers).or_else(|| body.get("id").and_then(Value::as_str).map(Into::into)),
        simulated: false,
        raw: body.get("usage").filter(|usage| !usage.is_null()).cloned(),
    }
}
