//! Reading an answer within bounds: of bytes, and of silence before its head and between two pieces of its body. A body that only
//! explains an unwelcome status is read as far as it helps, and is never an error of its own.

use super::{place, transport, unsendable};
use krowoc_engine::{ErrorClass, executor::StepError};
use reqwest::{RequestBuilder, Response};
use std::time::Duration;

/// So much of an explanation is read: errors are shown in excerpts, and classified by their first words.
const EXPLANATION: usize = 64 << 10;
/// So long is an explanation waited for; the status is known and must not be lost to a slow one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bounds of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// At most so many bytes.
    pub(crate) bytes: usize,
    /// At most so long without a byte.
    pub(crate) idle: Option<Duration>,
}

/// The head of the answer to a request. A server that has not begun is as silent as one that has stopped.
pub(crate) async fn head(request: RequestBuilder, idle: Option<Duration>) -> Result<Response, StepError> {
    let (client, request) = request.build_split();
    let request = request.map_err(unsendable)?;
    let place = place(request.url());
    within(idle, &place, client.execute(request)).await
}

/// Nothing came from there for so long.
pub(crate) fn silence(place: &str, idle: Duration) -> StepError {
    StepError::new(ErrorClass::Timeout, format!("no byte of an answer came from {place} for {idle:?}, the step's idle timeout"))
}

async fn within<T>(idle: Option<Duration>, place: &str, answer: impl Future<Output = reqwest::Result<T>>) -> Result<T, StepError> {
    let answer = match idle {
        Some(idle) => tokio::time::timeout(idle, answer).await.map_err(|_| silence(place, idle))?,
        None => answer.await,
    };
    answer.map_err(|error| transport(error, place))
}

/// The whole body, or why it can't be had. A body that ends before its declared end is a network error, never a short body.
pub(crate) async fn read(mut response: Response, limits: Limits) -> Result<Vec<u8>, StepError> {
    let too_large = || {
        StepError::new(
            ErrorClass::TooLarge,
            format!("the answer is larger than the limit of {} bytes; nothing of it was kept", limits.bytes),
        )
    };
    // A HEAD answer declares the length of a body that never comes, so a declared length alone refuses nothing.
    let mut body = Vec::new();
    let place = place(response.url());
    loop {
        match within(limits.idle, &place, response.chunk()).await? {
            Some(piece) if body.len() + piece.len() > limits.bytes => return Err(too_large()),
            Some(piece) => body.extend_from_slice(&piece),
            None => return Ok(body),
        }
    }
}

/// The start of a body that explains an unwelcome status: whatever of it came, however it ended.
pub(crate) async fn read_start(mut response: Response, idle: Option<Duration>) -> Vec<u8> {
    let mut body = Vec::new();
    let reading = async {
        while body.len() < EXPLANATION
            && let Ok(Some(piece)) = response.chunk().await
        {
            body.extend_from_slice(&piece);
        }
    };
    // Too slow is as good as over.
    let _ = tokio::time::timeout(idle.unwrap_or(PATIENCE).min(PATIENCE), reading).await;
    body.truncate(EXPLANATION);
    body
}
