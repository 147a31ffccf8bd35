//! Building clients: TLS by rustls with ring, redirects off (whoever wants them follows them by hand, so that every hop can be
//! looked at), five seconds to connect.

use super::Guard;
use krowoc_engine::{ErrorClass, error::said_once, executor::StepError};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether requests may go through the proxy that the system names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Proxy {
    /// As the system says.
    System,
    /// Never: a proxy would connect on our behalf, past the address guard.
    Never,
}

/// A client that is built at its first use, so that a machine without certificates can still validate files.
pub(crate) struct Client {
    built: OnceLock<Result<reqwest::Client, String>>,
    user_agent: String,
    proxy: Proxy,
    guard: Option<Arc<Guard>>,
}

impl Client {
    /// A client to be; a guard checks each address that a name resolves to.
    pub(crate) fn new(user_agent: &str, proxy: Proxy, guard: Option<Arc<Guard>>) -> Self {
        Self { built: OnceLock::new(), user_agent: user_agent.into(), proxy, guard }
    }

    /// The client.
    pub(crate) fn get(&self) -> Result<&reqwest::Client, StepError> {
        self.built.get_or_init(|| self.build()).as_ref().map_err(|e| {
            StepError::new(ErrorClass::Internal, format!("no HTTP client could be made: {e}; are CA certificates installed on the worker?"))
        })
    }

    fn build(&self) -> Result<reqwest::Client, String> {
        // An error says that a provider is installed already, which is all that is needed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(&self.user_agent)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        if self.proxy == Proxy::Never {
            builder = builder.no_proxy();
        }
        if let Some(guard) = &self.guard {
            builder = builder.dns_resolver(guard.clone());
        }
        builder.build().map_err(|e| chain(&e))
    }
}

/// What the client says of every failure of a kind, which its class says already.
const WRAPPERS: [&str; 5] =
    ["error sending request", "client error (Connect)", "client error (SendRequest)", "tcp connect error", "error resolving DNS"];

/// An error with its causes, each once and without the client's own words, unless there are no others.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes: Vec<String> = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect();
    let text = said_once(causes.iter().filter(|cause| !WRAPPERS.contains(&cause.as_str())).cloned());
    if text.is_empty() { causes.join(": ") } else { text }
}
