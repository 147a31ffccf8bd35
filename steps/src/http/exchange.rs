//! One exchange: build the request, follow redirects by hand, read the answer within its bounds.

use super::{
    answer::{self, Answer},
    config::{HttpConfig, MAX_BYTES, Method, Scalars},
};
use crate::{
    Secret, json,
    net::{Guard, Limits, class_of, read, retry_after, transport},
};
use krowoc_engine::{
    ErrorClass,
    executor::{StepContext, StepError},
};
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT, ACCEPT_LANGUAGE, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION},
};
use serde_json::json;
use std::collections::BTreeMap;

const REDIRECTS: usize = 5;
const EXCERPT: usize = 500;
/// Headers that may follow a redirect to another origin; any other may carry a credential or concern the first server alone.
const HARMLESS: [HeaderName; 4] = [ACCEPT, ACCEPT_LANGUAGE, CONTENT_LANGUAGE, CONTENT_TYPE];

/// The request as it goes out next: redirects change it.
struct Request {
    method: reqwest::Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

/// Sends the request and takes the answer if its status is an expected one.
pub(super) async fn carry_out(
    client: &reqwest::Client,
    guard: &Guard,
    context: &StepContext,
    config: &HttpConfig,
) -> Result<Answer, StepError> {
    let request = request(context, config)?;
    let secrets = secrets(&request);
    let response = send(client, guard, request).await.map_err(|e| masked(e, &secrets))?;
    let (status, headers, url) = (response.status(), response.headers().clone(), shown(response.url()));
    let body = read(response, Limits { bytes: config.max_bytes.min(MAX_BYTES), idle: context.idle_timeout }).await?;
    let expected = match &config.expect_status {
        Some(statuses) => statuses.contains(&status.as_u16()),
        None => status.is_success(),
    };
    if expected {
        return answer::take(status, &headers, &body);
    }
    let text = String::from_utf8_lossy(&body);
    let class = if status.is_success() { ErrorClass::InvalidRequest } else { class_of(status, &headers, &text) };
    let error = StepError::new(class, format!("{} {url} answered {status}", config.method.to_http()))
        .retry_after(retry_after(status, &headers).filter(|_| !status.is_success()))
        .details(json!({"status": status.as_u16(), "body": secrets.iter().fold(json::excerpt(&text, EXCERPT), |t, s| s.mask(&t))}));
    Err(error)
}

async fn send(client: &reqwest::Client, guard: &Guard, mut request: Request) -> Result<Response, StepError> {
    for _ in 0..=REDIRECTS {
        guard.check(&request.url)?;
        let mut builder = client.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let response = builder.send().await.map_err(transport)?;
        let Some(target) = target(&response)? else { return Ok(response) };
        request = redirected(request, response.status(), target)?;
    }
    Err(invalid(format!("more than {REDIRECTS} redirects, the last to {}", shown(&request.url))))
}

/// Where a redirect leads; nothing for other answers and for redirects that name no place.
fn target(response: &Response) -> Result<Option<Url>, StepError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
    let url = location.to_str().ok().and_then(|l| response.url().join(l).ok());
    url.map(Some).ok_or_else(|| invalid("the server redirects to something that is no URL"))
}

/// The next request, by RFC 9110 section 15.4; to another origin no credential goes along.
fn redirected(mut request: Request, status: StatusCode, target: Url) -> Result<Request, StepError> {
    if request.url.scheme() == "https" && target.scheme() != "https" {
        return Err(invalid(format!("{} redirects from https to {}", shown(&request.url), shown(&target))));
    }
    let to_get = status == StatusCode::SEE_OTHER && request.method != reqwest::Method::HEAD
        || matches!(status.as_u16(), 301 | 302) && request.method == reqwest::Method::POST;
    if to_get {
        request.method = reqwest::Method::GET;
        request.body = None;
        request.headers.remove(CONTENT_TYPE);
    }
    if target.origin() != request.url.origin() {
        let names: Vec<HeaderName> = request.headers.keys().filter(|name| !HARMLESS.contains(name)).cloned().collect();
        for name in names {
            request.headers.remove(name);
        }
    }
    request.url = target;
    Ok(request)
}

fn request(context: &StepContext, config: &HttpConfig) -> Result<Request, StepError> {
    let mut url: Url = config.url.parse().map_err(|e| invalid(format!("`{}` is no URL: {e}", config.url)))?;
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
    let by_default = matches!(config.method, Method::Post | Method::Patch).then(|| context.idempotency_key());
    if let Some(key) = config.idempotency_key.clone().or(by_default) {
        insert(&mut headers, "idempotency-key", &key)?;
    }
    for (name, value) in &config.headers {
        if let Some(value) = value {
            insert(&mut headers, name, &value.to_string())?;
        }
    }
    Ok(Request { method: config.method.to_http(), url, headers, body })
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
    // The value is not shown: it may be a credential.
    let value = HeaderValue::from_str(value)
        .map_err(|_| invalid(format!("the value of header `{name}` holds a line break or a control character")))?;
    headers.insert(header, value);
    Ok(())
}

/// What the request carries that an error must not show when the server echoes it.
fn secrets(request: &Request) -> Vec<Secret> {
    let telling = |name: &str| ["authorization", "cookie", "key", "token", "secret", "password"].iter().any(|word| name.contains(word));
    let headers = request.headers.iter().filter(|(name, _)| *name != "idempotency-key" && telling(name.as_str()));
    let values = headers.filter_map(|(_, value)| value.to_str().ok());
    values.flat_map(|value| [value, value.rsplit(' ').next().unwrap_or(value)]).map(Secret::new).collect()
}

fn masked(mut error: StepError, secrets: &[Secret]) -> StepError {
    error.message = secrets.iter().fold(error.message, |text, secret| secret.mask(&text));
    error
}

/// A URL without what may be secret in it.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

fn invalid(message: impl Into<String>) -> StepError {
    StepError::new(ErrorClass::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_redirect_to_an_address_inside_is_refused_though_the_first_hop_was_allowed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]).await;
                let reply =
                    format!("HTTP/1.1 302 X\r\nconnection: close\r\nlocation: http://{address}/inside\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.write_all(reply.as_bytes()).await;
            }
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        // The name stands for a server outside: its address is given here, so that the guard sees nothing but the name.
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).resolve("outside.test", address);
        let client = client.build().expect("a client");
        let url = format!("http://outside.test:{}/", address.port()).parse().expect("a URL");
        let request = Request { method: reqwest::Method::GET, url, headers: HeaderMap::new(), body: None };
        let error = send(&client, &Guard::new(false), request).await.expect_err("refused");
        assert!(error.class == ErrorClass::InvalidRequest && error.message.contains("loopback"), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "only the first hop was called");
    }
}
