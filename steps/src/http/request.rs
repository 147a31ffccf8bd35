//! The request as a step's configuration says it.

use super::{
    config::{HttpConfig, Method, Scalars},
    invalid,
};
use crate::{Secret, net::shown_text, secrets::Secrets};
use krowoc_engine::executor::{StepContext, StepError};
use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use std::collections::BTreeMap;

/// The request as it goes out next: redirects change it.
pub(super) struct Request {
    pub(super) method: reqwest::Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Vec<u8>>,
}

impl Request {
    /// As the step says.
    pub(super) fn new(context: &StepContext, config: &HttpConfig) -> Result<Self, StepError> {
        let mut url: Url = config.url.parse().map_err(|e| invalid(format!("`{}` is no URL: {e}", shown_text(&config.url))))?;
        if !config.query.is_empty() {
            let mut query = url.query_pairs_mut();
            for (name, value) in pairs(&config.query) {
                query.append_pair(name, &value);
            }
        }
        let (body, content_type) = body(config)?;
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let by_default = matches!(config.method, Method::Post | Method::Patch).then(|| wire_safe(&context.idempotency_key()));
        if let Some(key) = config.idempotency_key.clone().or(by_default) {
            insert(&mut headers, "idempotency-key", &key)?;
        }
        for (name, value) in &config.headers {
            if let Some(value) = value {
                insert(&mut headers, name, &value.to_string())?;
            }
        }
        Ok(Self { method: config.method.to_http(), url, headers, body })
    }

    /// What the request carries that must not be shown when the server echoes it: the values of telling headers, whole and
    /// without the scheme in front.
    pub(super) fn secrets(&self) -> Secrets {
        let words = ["authorization", "cookie", "key", "token", "secret", "password"];
        let telling = |name: &str| !name.contains("idempotency") && words.iter().any(|word| name.contains(word));
        let headers = self.headers.iter().filter(|(name, _)| telling(name.as_str()));
        let values = headers.filter_map(|(_, value)| std::str::from_utf8(value.as_bytes()).ok());
        values.flat_map(|value| [value, value.rsplit(' ').next().unwrap_or(value)]).map(Secret::new).collect()
    }
}

fn body(config: &HttpConfig) -> Result<(Option<Vec<u8>>, Option<&'static str>), StepError> {
    match (&config.json, &config.body, &config.form) {
        (None, None, None) => Ok((None, None)),
        (Some(json), None, None) => Ok((Some(json.to_string().into_bytes()), Some("application/json"))),
        (None, Some(text), None) => Ok((Some(text.clone().into_bytes()), Some("text/plain; charset=utf-8"))),
        (None, None, Some(form)) => {
            // The query of a URL and a form are encoded alike.
            let mut url = Url::parse("http://form.invalid").map_err(|e| invalid(e.to_string()))?;
            url.query_pairs_mut().extend_pairs(pairs(form));
            Ok((Some(url.query().unwrap_or_default().into()), Some("application/x-www-form-urlencoded")))
        }
        _ => Err(invalid("a request has one body: give one of json, body and form")),
    }
}

fn pairs(map: &BTreeMap<String, Option<Scalars>>) -> impl Iterator<Item = (&str, String)> {
    map.iter().flat_map(|(name, values)| values.iter().flat_map(Scalars::each).map(|value| (name.as_str(), value.to_string())))
}

/// Later ones replace earlier ones: what a file says wins over what goes by default.
fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), StepError> {
    let header: HeaderName = name.parse().map_err(|_| invalid(format!("`{name}` is no header name")))?;
    // UTF-8 goes out as it is (obs-text in RFC 9110 section 5.5). The value is not shown: it may be a credential.
    let value = HeaderValue::from_bytes(value.as_bytes())
        .map_err(|_| invalid(format!("the value of header `{name}` holds a line break or a control character")))?;
    headers.insert(header, value);
    Ok(())
}

/// A step's path holds item keys as the input has them; what no header carries everywhere (spaces, all beyond ASCII) is
/// percent-encoded, and `%` too, so that different keys stay different.
fn wire_safe(key: &str) -> String {
    key.bytes().fold(String::with_capacity(key.len()), |mut safe, byte| {
        match byte {
            b'%' => safe.push_str("%25"),
            0x21..=0x7e => safe.push(char::from(byte)),
            other => safe.push_str(&format!("%{other:02X}")),
        }
        safe
    })
}
