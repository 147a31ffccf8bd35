//! Building clients: TLS by rustls with ring, redirects off (whoever wants them follows them by hand, so that every hop can be
//! looked at), five seconds to connect. Each runtime has a client of its own: connections are driven by tasks of the runtime that made them,
//! and a request on one whose threads are all taken would wait for them.

use super::Guard;
use krowoc_engine::{ErrorClass, error::said_once, executor::StepError};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::runtime::{self, Handle};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether requests may go through the proxy that the system names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Proxy {
    /// As the system says.
    System,
    /// Never: a proxy would connect on our behalf, past the address guard.
    Never,
}

/// Runtimes with clients: a worker's own, and the spare ones that stand in for it. Beyond that the oldest has gone, or does without its
/// connections.
const RUNTIMES: usize = 16;

/// A client that is built at its first use, so that a machine without certificates can still validate files.
pub(crate) struct Client {
    built: Mutex<Vec<(runtime::Id, reqwest::Client)>>,
    user_agent: String,
    proxy: Proxy,
    guard: Option<Arc<Guard>>,
}

impl Client {
    /// A client to be; a guard checks each address that a name resolves to.
    pub(crate) fn new(user_agent: &str, proxy: Proxy, guard: Option<Arc<Guard>>) -> Self {
        Self { built: Mutex::default(), user_agent: user_agent.into(), proxy, guard }
    }

    /// The client of the runtime that this is called on.
    pub(crate) fn get(&self) -> Result<reqwest::Client, StepError> {
        let here = Handle::current().id();
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = built.iter().find(|(runtime, _)| *runtime == here) {
            return Ok(client.clone());
        }
        let client = self.build().map_err(|e| {
            StepError::new(ErrorClass::Internal, format!("no HTTP client could be made: {e}; are CA certificates installed on the worker?"))
        })?;
        if built.len() == RUNTIMES {
            built.remove(0);
        }
        built.push((here, client.clone()));
        Ok(client)
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
