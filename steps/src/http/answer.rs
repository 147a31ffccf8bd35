//! From a response to the step's output.

use crate::{json, secrets::Secrets};
use krowoc_engine::{ErrorClass, executor::StepError};
use reqwest::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderMap, SET_COOKIE},
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The output of an `http` step.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Option<String>,
    json: Value,
    bytes: usize,
}

/// Takes a whole answer. A body that is declared JSON and is none is a server error: half an answer must not become an output.
/// Echoed credentials are masked in all of it, since an output is kept and shown.
pub(super) fn take(status: StatusCode, headers: &HeaderMap, body: &[u8], secrets: &Secrets) -> Result<Answer, StepError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let mut json = if (media == "application/json" || media.ends_with("+json")) && !body.trim_ascii().is_empty() {
        json::parse(body)
            .map_err(|e| StepError::new(ErrorClass::ServerError, format!("the answer is declared {media} but is no JSON: {e}")))?
    } else {
        Value::Null
    };
    // Not before it is parsed: a mask in the raw text could make it no JSON.
    secrets.mask_json(&mut json);
    let text = text(&content_type, body).map(|text| secrets.mask(&text));
    Ok(Answer { status: status.as_u16(), headers: shown(headers, secrets), body: text, json, bytes: body.len() })
}

/// Lower-case names; several values are joined as RFC 9110 section 5.3 joins them. Cookies are credentials and stay out of the
/// run's history.
fn shown(headers: &HeaderMap, secrets: &Secrets) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::<String, String>::new();
    for (name, value) in headers.iter().filter(|(name, _)| **name != SET_COOKIE) {
        let value = secrets.mask(&String::from_utf8_lossy(value.as_bytes()));
        match shown.get_mut(name.as_str()) {
            Some(joined) => {
                joined.push_str(", ");
                joined.push_str(&value);
            }
            None => {
                shown.insert(name.as_str().into(), value);
            }
        }
    }
    shown
}

/// The body as text: UTF-8, or Latin-1 where that is declared. Nothing for anything else; a mangled text would look like an answer.
fn text(content_type: &str, body: &[u8]) -> Option<String> {
    if let Ok(text) = std::str::from_utf8(body) {
        return Some(text.into());
    }
    let latin = ["charset=iso-8859-1", "charset=\"iso-8859-1\"", "charset=latin1"].iter().any(|c| content_type.contains(c));
    latin.then(|| body.iter().map(|byte| char::from(*byte)).collect())
}
