//! What one process takes at once: requests, bytes of their bodies, and how large one body may be. A flood is answered "come back", and
//! exhausts neither memory nor the connections to the database.

use crate::problem::{Code, Said};
use futures::TryStreamExt;
use poem::{Body, Endpoint, Middleware, Request, Result, http::header};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::Semaphore;

/// The largest body.
pub const LARGEST_BODY: u64 = 32 * 1024 * 1024;

/// How much is taken at once.
#[derive(Clone, Copy, Debug)]
pub struct LimitsConfig {
    /// Requests that are being answered. Those that wait for a run to end count.
    pub requests: usize,
    /// Bytes of bodies that are being read or worked on. What a body becomes in memory is a few times as large.
    pub body_bytes: u64,
    /// Bytes of one body.
    pub largest_body: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { requests: 1024, body_bytes: 4 * LARGEST_BODY, largest_body: LARGEST_BODY }
    }
}

/// The middleware. It stands behind the guard: nobody without a token takes anything.
#[derive(Clone)]
pub struct Limits {
    config: LimitsConfig,
    requests: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
}

impl Limits {
    /// With these limits, for all endpoints that it is put around.
    pub fn new(config: LimitsConfig) -> Self {
        let kibibytes = usize::try_from(config.body_bytes / 1024).unwrap_or(Semaphore::MAX_PERMITS);
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self { config, requests: semaphore(config.requests), kibibytes: semaphore(kibibytes) }
    }
}

impl<E: Endpoint> Middleware<E> for Limits {
    type Output = Limited<E>;

    fn transform(&self, inner: E) -> Limited<E> {
        Limited { limits: self.clone(), inner }
    }
}

/// What [`Limits`] makes of an endpoint.
pub struct Limited<E> {
    limits: Limits,
    inner: E,
}

impl<E: Endpoint> Endpoint for Limited<E> {
    type Output = E::Output;

    async fn call(&self, mut request: Request) -> Result<E::Output> {
        let Limits { config, requests, kibibytes } = &self.limits;
        let overloaded =
            |what| Said::new(Code::Overloaded, format!("the server has as {what} as it takes at once; come back a little later"));
        let _request = requests.try_acquire().map_err(|_| overloaded("many requests"))?;
        let announced = announced(&request)?;
        if announced.is_some_and(|bytes| bytes > config.largest_body) {
            return Err(too_large(config.largest_body).into());
        }
        // One of unknown length may become as large as any.
        let bytes = announced.unwrap_or(config.largest_body);
        let room = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let _bytes = kibibytes.try_acquire_many(room).map_err(|_| overloaded("much to read"))?;
        if announced.is_none() {
            let body = request.take_body();
            request.set_body(bounded(body, config.largest_body));
        }
        self.inner.call(request).await
    }
}

/// How long the body says that it is; none for one that comes in chunks.
fn announced(request: &Request) -> Result<Option<u64>, Said> {
    let headers = request.headers();
    match headers.get(header::CONTENT_LENGTH) {
        Some(length) => {
            let length = length.to_str().ok().and_then(|length| length.parse().ok());
            length.map(Some).ok_or_else(|| Said::new(Code::BadRequest, "`Content-Length` is not a number"))
        }
        // Over HTTP/2 a body needs neither; one without an end marked is of unknown length.
        None if headers.contains_key(header::TRANSFER_ENCODING) || request.version() == poem::http::Version::HTTP_2 => Ok(None),
        None => Ok(Some(0)),
    }
}

/// A body that fails where it becomes too large.
fn bounded(body: Body, largest: u64) -> Body {
    let read = AtomicU64::new(0);
    Body::from_bytes_stream(body.into_bytes_stream().and_then(move |bytes| {
        let all = read.fetch_add(bytes.len() as u64, Relaxed) + bytes.len() as u64;
        std::future::ready(if all > largest { Err(io::Error::new(io::ErrorKind::FileTooLarge, too_large(largest))) } else { Ok(bytes) })
    }))
}

fn too_large(largest: u64) -> Said {
    Said::new(Code::TooLarge, format!("the body is larger than {} MiB", largest / 1024 / 1024))
}
