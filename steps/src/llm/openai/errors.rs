//! The error classes of the Chat Completions dialects: OpenAI's own `{"error": {message, type, code}}`, `{"error": "…"}` (Ollama),
//! `{"message": …}` (vLLM), `{"detail": …}` (proxies).

use crate::{
    json,
    net::{class_of, retry_after, shown_text},
    secrets::Secrets,
};
use krowoc_engine::{ErrorClass, executor::StepError};
use reqwest::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderMap, LOCATION},
};
use serde_json::{Value, json};

const EXCERPT: usize = 500;

/// No key where one is needed.
pub(super) fn missing_key() -> StepError {
    StepError::new(
        ErrorClass::Auth,
        "no key for the openai provider: set OPENAI_API_KEY where the worker runs (or point it at another server)",
    )
}

/// An answer with a status other than 200.
pub(super) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8], secrets: &Secrets) -> StepError {
    if status.is_redirection() {
        let target = headers.get(LOCATION).and_then(|l| l.to_str().ok()).map_or("nowhere".into(), shown_text);
        let message = format!("the openai provider's base URL redirects ({status}) to {target}; requests with a key are not sent on");
        return finish(StepError::new(ErrorClass::InvalidRequest, message), status, headers, None, secrets);
    }
    let mut parsed = json::parse(body).ok();
    // An escape may have hidden the key in the raw text.
    parsed.iter_mut().for_each(|body| secrets.mask_json(body));
    let said = Said::of(parsed.as_ref(), body, secrets);
    let class = said.class().unwrap_or_else(|| class_of(status, headers, &said.message));
    let class = if status.is_success() { ErrorClass::ServerError } else { class };
    let message = match class {
        ErrorClass::Auth => {
            format!("the openai provider refused the key ({status}); check OPENAI_API_KEY where the worker runs: {}", said.message)
        }
        _ if status == StatusCode::NOT_FOUND => format!("the openai provider knows no such model or address ({status}): {}", said.message),
        _ => format!("the openai provider answered {status}: {}", said.message),
    };
    finish(StepError::new(class, message).retry_after(retry_after(status, headers)), status, headers, parsed.as_ref(), secrets)
}

/// An error object in an answer with status 200, as gateways send it.
pub(super) fn inside_ok(body: &Value, headers: &HeaderMap, secrets: &Secrets) -> StepError {
    let said = Said::of(Some(body), b"", secrets);
    let status = said.code.parse().ok().and_then(|code: u16| StatusCode::from_u16(code).ok()).filter(|s| s.as_u16() >= 400);
    let by_status = || status.map_or(ErrorClass::ServerError, |status| class_of(status, headers, &said.message));
    let error =
        StepError::new(said.class().unwrap_or_else(by_status), format!("the openai provider answered with an error: {}", said.message))
            .retry_after(retry_after(status.unwrap_or(StatusCode::OK), headers));
    finish(error, StatusCode::OK, headers, Some(body), secrets)
}

/// A 200 that is no JSON: a proxy's page, or half an answer.
pub(super) fn no_json(headers: &HeaderMap, body: &[u8], error: &serde_json::Error, secrets: &Secrets) -> StepError {
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("no content type");
    StepError::new(ErrorClass::ServerError, format!("the openai provider's answer ({content_type}) is no JSON: {error}")).details(
        json!({"status": 200, "body": secrets.excerpt(&String::from_utf8_lossy(body), EXCERPT), "request_id": request_id(headers, secrets)}),
    )
}

/// The provider's id of the request.
pub(super) fn request_id(headers: &HeaderMap, secrets: &Secrets) -> Option<String> {
    headers.get("x-request-id").and_then(|v| v.to_str().ok()).map(|id| secrets.mask(id))
}

/// Masks the message too: it may hold what a header said.
fn finish(mut error: StepError, status: StatusCode, headers: &HeaderMap, body: Option<&Value>, secrets: &Secrets) -> StepError {
    error.message = secrets.mask(&error.message);
    let body = body.map(|body| secrets.excerpt(&body.to_string(), EXCERPT));
    error.details(json!({"status": status.as_u16(), "body": body, "request_id": request_id(headers, secrets)}))
}

/// What a server says went wrong.
struct Said {
    code: String,
    kind: String,
    message: String,
}

impl Said {
    fn of(body: Option<&Value>, raw: &[u8], secrets: &Secrets) -> Self {
        let error = body.map(|body| body.get("error").filter(|e| !e.is_null()).unwrap_or(body));
        let field = |name: &str| match error.and_then(|e| e.get(name)) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Null) | None => None,
            Some(other) => Some(other.to_string()),
        };
        let whole = || error.and_then(Value::as_str).map_or_else(|| String::from_utf8_lossy(raw).into_owned(), Into::into);
        let message = field("message").or_else(|| field("detail")).unwrap_or_else(whole);
        Self {
            code: field("code").unwrap_or_default(),
            kind: field("type").unwrap_or_default(),
            message: secrets.excerpt(message.trim(), EXCERPT),
        }
    }

    /// The class by what the server says rather than by the status.
    fn class(&self) -> Option<ErrorClass> {
        let is = |names: &[&str]| names.contains(&self.code.as_str()) || names.contains(&self.kind.as_str());
        let message = self.message.to_ascii_lowercase();
        let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
        if is(&["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"]) {
            Some(ErrorClass::QuotaExhausted)
        } else if is(&["context_length_exceeded", "exceed_context_size_error"])
            || says(&["maximum context length", "context length exceeded", "exceeds the context", "exceed context", "context window"])
        {
            Some(ErrorClass::ContextTooLong)
        } else if is(&["content_filter", "content_policy_violation"]) {
            Some(ErrorClass::Refused)
        } else if is(&["invalid_api_key"]) {
            Some(ErrorClass::Auth)
        } else {
            None
        }
    }
}
