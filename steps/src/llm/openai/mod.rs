//! OpenAI Chat Completions, at OpenAI or at any server that speaks it (Ollama, vLLM, LiteLLM, llama.cpp).

mod base_url;
mod errors;
mod request;
mod response;
mod strict;

pub use base_url::BaseUrl;

use super::model::{Answer, Provider, Request};
use crate::{
    Secret, StepsConfig, json,
    net::{Client, Limits, Proxy, head, read, read_start},
    secrets::Secrets,
};
use async_trait::async_trait;
use krowoc_engine::{
    ErrorClass,
    executor::{StepContext, StepError},
};
use reqwest::{
    StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};

const MAX_BYTES: usize = 32 << 20;

/// The provider.
pub(super) struct OpenAi {
    client: Client,
    key: Option<Secret>,
    secrets: Secrets,
    endpoint: Url,
    dialect: Dialect,
    /// Is the address the user's own?
    configured: bool,
}

/// Where servers that speak the same format differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// OpenAI itself: a key is needed, and the limit's name is `max_completion_tokens`.
    OpenAi,
    /// Everyone else: the key is optional, and the limit's name is the older `max_tokens`.
    Compatible,
}

impl OpenAi {
    /// At the configured address.
    pub(super) fn new(config: &StepsConfig) -> Self {
        let base = config.openai_base_url.clone().unwrap_or_default();
        // A server on this machine is never behind the system's proxy.
        let proxy = if base.is_local() { Proxy::Never } else { Proxy::System };
        let key = config.openai_api_key.clone();
        let secrets = key.iter().cloned().collect();
        Self {
            client: Client::new(&config.user_agent, proxy, None),
            key,
            secrets,
            endpoint: base.endpoint(),
            dialect: base.dialect(),
            configured: config.openai_base_url.is_some(),
        }
    }

    /// Where nobody answers, the address may be wrong.
    fn unanswered(&self, mut error: StepError) -> StepError {
        if self.configured && matches!(error.class, ErrorClass::Network | ErrorClass::Timeout) {
            error.message.push_str(" (the address is that of OPENAI_BASE_URL)");
        }
        error
    }

    fn headers(&self) -> Result<HeaderMap, StepError> {
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        match &self.key {
            Some(key) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).map_err(|_| {
                    StepError::new(
                        ErrorClass::Auth,
                        "the key in OPENAI_API_KEY holds a line break, a control character or one beyond ASCII; set it anew",
                    )
                })?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
            None if self.dialect == Dialect::OpenAi => return Err(errors::missing_key()),
            None => {}
        }
        Ok(headers)
    }
}

#[async_trait]
impl Provider for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    async fn chat(&self, context: &StepContext, request: Request) -> Result<Answer, StepError> {
        let headers = self.headers()?;
        let wire = request::body(&request, self.dialect)?;
        let post = self.client.get()?.post(self.endpoint.clone()).headers(headers).body(wire.json);
        // Only the key and the schema's wrapping outlive the request.
        drop(request);
        let response = head(post, context.idle_timeout).await.map_err(|error| self.unanswered(error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status != StatusCode::OK {
            let body = read_start(response, context.idle_timeout).await;
            return Err(errors::refused(status, &headers, &body, &self.secrets));
        }
        let limits = Limits { bytes: MAX_BYTES, idle: context.idle_timeout };
        let body = read(response, limits).await.map_err(|error| self.unanswered(error))?;
        let mut value = json::parse(&body).map_err(|e| errors::no_json(&headers, &body, &e, &self.secrets))?;
        drop(body);
        // A server may echo the key anywhere, also in an answer.
        self.secrets.mask_json(&mut value);
        response::answer(value, &headers, wire.wrapped, &self.secrets)
    }
}
