//! One exchange: send the request, follow redirects by hand, read the answer within its bounds.

use super::{
    answer::{self, Answer},
    config::{HttpConfig, MAX_BYTES},
    invalid,
    request::Request,
};
use crate::{
    net::{Guard, Limits, class_of, head, read, read_start, retry_after, shown},
    secrets::Secrets,
};
use krowoc_engine::{
    ErrorClass,
    executor::{StepContext, StepError},
};
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT, ACCEPT_LANGUAGE, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderName, LOCATION},
};
use serde_json::json;
use std::time::Duration;

const REDIRECTS: usize = 5;
const EXCERPT: usize = 500;
/// Headers that may follow a redirect to another origin; any other may carry a credential or concern the first server alone.
const HARMLESS: [HeaderName; 4] = [ACCEPT, ACCEPT_LANGUAGE, CONTENT_LANGUAGE, CONTENT_TYPE];

/// Sends the request and takes the answer if its status is an expected one.
pub(super) async fn carry_out(
    client: &reqwest::Client,
    guard: &Guard,
    context: &StepContext,
    config: &HttpConfig,
) -> Result<Answer, StepError> {
    let request = Request::new(context, config)?;
    let secrets = request.secrets();
    let response = send(client, guard, config, request, context.idle_timeout).await.map_err(|e| masked(e, &secrets))?;
    let (status, headers, url) = (response.status(), response.headers().clone(), shown(response.url()));
    if config.expects(status) {
        let body = read(response, Limits { bytes: config.max_bytes.min(MAX_BYTES), idle: context.idle_timeout }).await?;
        return answer::take(status, &headers, &body, &secrets);
    }
    let body = read_start(response, context.idle_timeout).await;
    let text = String::from_utf8_lossy(&body);
    let class = if status.is_success() { ErrorClass::InvalidRequest } else { class_of(status, &headers, &text) };
    let error = StepError::new(class, format!("{} {url} answered {status}", config.method.to_http()))
        .retry_after(retry_after(status, &headers).filter(|_| !status.is_success()))
        .details(json!({"status": status.as_u16(), "body": secrets.excerpt(&text, EXCERPT)}));
    Err(error)
}

/// The first answer that is no redirect, or that the step asks for though it is one.
async fn send(
    client: &reqwest::Client,
    guard: &Guard,
    config: &HttpConfig,
    mut request: Request,
    idle: Option<Duration>,
) -> Result<Response, StepError> {
    for _ in 0..=REDIRECTS {
        guard.check(&request.url)?;
        let mut builder = client.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let response = head(builder, idle).await?;
        if config.expects(response.status()) {
            return Ok(response);
        }
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

fn masked(mut error: StepError, secrets: &Secrets) -> StepError {
    error.message = secrets.mask(&error.message);
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderMap;
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
        let url = format!("http://outside.test:{}/", address.port());
        let config: HttpConfig = serde_json::from_value(json!({"url": url})).expect("a configuration");
        let url = url.parse().expect("a URL");
        let request = Request { method: reqwest::Method::GET, url, headers: HeaderMap::new(), body: None };
        let error = send(&client, &Guard::new(false), &config, request, None).await.expect_err("refused");
        assert!(error.class == ErrorClass::InvalidRequest && error.message.contains("loopback"), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "only the first hop was called");
    }
}
