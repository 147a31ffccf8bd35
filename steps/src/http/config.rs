//! What may stand under `http:`.

use crate::net::shown_text;
use krowoc_engine::definition::{Check, join_pointer, parse_duration};
use reqwest::{StatusCode, Url};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The configuration of an `http` step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// The method; GET if left out.
    #[serde(default)]
    pub method: Method,
    /// Where to: an absolute http or https URL.
    pub url: String,
    /// Request headers. A null leaves the header out.
    #[serde(default)]
    pub headers: BTreeMap<String, Option<Scalar>>,
    /// Query parameters, added to those of the URL; a list repeats the parameter, a null leaves it out.
    #[serde(default)]
    pub query: BTreeMap<String, Option<Scalars>>,
    /// A JSON body (any value). At most one of json, body and form.
    #[serde(default, deserialize_with = "present")]
    pub json: Option<Value>,
    /// A text body.
    pub body: Option<String>,
    /// A form body (application/x-www-form-urlencoded); a null leaves the field out.
    pub form: Option<BTreeMap<String, Option<Scalars>>>,
    /// How long the whole exchange may take (`30s`); the attempt's timeout bounds it all the same.
    pub timeout: Option<String>,
    /// The Idempotency-Key header. POST and PATCH send one by default: the same for every attempt of the step, different for every
    /// step and item.
    pub idempotency_key: Option<String>,
    /// The statuses that count as success; any 2xx if left out. A redirect among them is not followed.
    #[schemars(length(min = 1), inner(range(min = 200, max = 599)))]
    pub expect_status: Option<Vec<u16>>,
    /// The largest answer to take, in bytes: 1 MiB if left out, 32 MiB at most.
    #[serde(default = "default_max_bytes")]
    #[schemars(range(min = 1, max = 33_554_432))]
    pub max_bytes: usize,
}

impl HttpConfig {
    /// Does the step take an answer with this status?
    pub(super) fn expects(&self, status: StatusCode) -> bool {
        self.expect_status.as_ref().map_or(status.is_success(), |statuses| statuses.contains(&status.as_u16()))
    }
}

/// The cap of `max_bytes`.
pub(super) const MAX_BYTES: usize = 32 << 20;

fn default_max_bytes() -> usize {
    1 << 20
}

/// Tells `json: null`, a body, from no `json` at all.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// An HTTP method.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "RFC 9110 and RFC 5789 have them")]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    /// For reqwest.
    pub(super) fn to_http(self) -> reqwest::Method {
        match self {
            Self::Get => reqwest::Method::GET,
            Self::Head => reqwest::Method::HEAD,
            Self::Post => reqwest::Method::POST,
            Self::Put => reqwest::Method::PUT,
            Self::Patch => reqwest::Method::PATCH,
            Self::Delete => reqwest::Method::DELETE,
            Self::Options => reqwest::Method::OPTIONS,
        }
    }
}

/// A value that is text on the wire.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(missing_docs, reason = "as JSON has them")]
pub enum Scalar {
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// One value or several.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(missing_docs, reason = "said above")]
pub enum Scalars {
    One(Scalar),
    Many(Vec<Scalar>),
}

impl Scalars {
    /// Each value.
    pub(super) fn each(&self) -> &[Scalar] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// What the schema can't say. Strings that hold expressions are left to the attempt.
pub(super) fn validate(config: &Value, check: &mut Check<'_>) {
    let constant = |key: &str| config.get(key).and_then(Value::as_str).filter(|text| !text.contains("${{"));
    let bodies: Vec<&str> = ["json", "body", "form"].into_iter().filter(|key| config.get(key).is_some()).collect();
    if let [_, second, ..] = bodies[..] {
        check.problem("conflicting_keys", &format!("/{second}"), format!("a request has one body, but {} are given", bodies.join(" and ")));
    }
    if let (Some("GET" | "HEAD") | None, [body, ..]) = (config.get("method").map_or(Some("GET"), Value::as_str), &bodies[..]) {
        check.problem_with_help("body_without_method", &format!("/{body}"), "a GET or HEAD request has no body", "add `method: POST`");
    }
    match constant("timeout").map(parse_duration) {
        Some(Err(message)) => check.problem("invalid_duration", "/timeout", message),
        Some(Ok(timeout)) if timeout.is_zero() => check.problem("invalid_duration", "/timeout", "no request can be done in no time"),
        _ => {}
    }
    if let Some(url) = constant("url") {
        match url.parse::<Url>() {
            Ok(url) if matches!(url.scheme(), "http" | "https") => {}
            Ok(other) => check.problem("invalid_url", "/url", format!("`{}` URLs are not supported; use http or https", other.scheme())),
            Err(e) => check.problem("invalid_url", "/url", format!("`{}` is no URL: {e}", shown_text(url))),
        }
    }
    for (name, _) in config.get("headers").and_then(Value::as_object).into_iter().flatten() {
        if name.parse::<reqwest::header::HeaderName>().is_err() {
            let pointer = join_pointer("/headers", name);
            check.problem("invalid_header", &pointer, format!("`{name}` is no header name"));
        }
    }
}
