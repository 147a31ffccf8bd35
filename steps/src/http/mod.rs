//! `http`: one request to any server, and its answer as the step's output.
//!
//! The output is `{status, headers, body, json, bytes}`: `headers` in lower case without `set-cookie`, `body` the text (null where
//! the answer is no text), `json` the parsed body where the server declares JSON (else null), `bytes` the body's length.
//! Addresses inside the worker's network are refused unless the configuration allows them, the system's proxy is not used, and
//! redirects are followed by hand (at most five) unless their status is expected, each hop judged like the first.

mod answer;
mod config;
mod exchange;
mod request;

pub use config::{HttpConfig, Method, Scalar, Scalars};

use crate::{
    StepsConfig,
    net::{Client, Guard, Proxy, shown_text},
};
use async_trait::async_trait;
use krowoc_engine::{
    ErrorClass,
    definition::{Check, parse_duration},
    executor::{StepContext, StepError, StepKind, StepOutput},
};
use serde_json::Value;
use std::sync::Arc;

/// The kind.
pub struct Http {
    client: Client,
    guard: Arc<Guard>,
}

impl Http {
    /// With its client's settings.
    pub fn new(config: &StepsConfig) -> Self {
        let guard = Arc::new(Guard::new(config.allow_private_addresses));
        Self { client: Client::new(&config.user_agent, Proxy::Never, Some(guard.clone())), guard }
    }
}

#[async_trait]
impl StepKind for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn schema(&self) -> Value {
        crate::json_schema_of::<HttpConfig>("One HTTP request; the output is {status, headers, body, json, bytes}.")
    }

    fn validate(&self, config: &Value, check: &mut Check<'_>) {
        config::validate(config, check);
    }

    async fn execute(&self, context: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        let config: HttpConfig = serde_json::from_value(config).map_err(|e| invalid(format!("http: {e}")))?;
        let timeout = config.timeout.as_deref().map(parse_duration).transpose();
        let timeout = timeout.map_err(|e| invalid(format!("http: timeout: {e}")))?;
        let client = self.client.get()?;
        let exchange = exchange::carry_out(&client, &self.guard, context, &config);
        let late = |timeout| {
            let url = shown_text(&config.url);
            StepError::new(ErrorClass::Timeout, format!("no whole answer from {url} within the step's timeout of {timeout:?}"))
        };
        let answer = match timeout {
            Some(timeout) => tokio::time::timeout(timeout, exchange).await.map_err(|_| late(timeout))??,
            None => exchange.await?,
        };
        StepOutput::json(&answer)
    }
}

fn invalid(message: impl Into<String>) -> StepError {
    StepError::new(ErrorClass::InvalidRequest, message)
}
