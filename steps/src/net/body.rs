//! Reading a body within bounds: of bytes, and of silence between two pieces.

use super::transport;
use krowoc_engine::{ErrorClass, executor::StepError};
use std::time::Duration;

/// Bounds of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// At most so many bytes.
    pub(crate) bytes: usize,
    /// At most so long without a byte.
    pub(crate) idle: Option<Duration>,
}

/// The whole body, or why it can't be had. A body that ends before its declared end is a network error, never a short body.
pub(crate) async fn read(mut response: reqwest::Response, limits: Limits) -> Result<Vec<u8>, StepError> {
    let too_large = || {
        StepError::new(
            ErrorClass::TooLarge,
            format!("the answer is larger than the limit of {} bytes; nothing of it was kept", limits.bytes),
        )
    };
    // A HEAD answer declares the length of a body that never comes, so a declared length alone refuses nothing.
    let mut body = Vec::new();
    loop {
        let piece = match limits.idle {
            Some(idle) => tokio::time::timeout(idle, response.chunk())
                .await
                .map_err(|_| StepError::new(ErrorClass::Timeout, format!("no byte of the answer came for {idle:?}")))?,
            None => response.chunk().await,
        };
        match piece.map_err(transport)? {
            Some(piece) if body.len() + piece.len() > limits.bytes => return Err(too_large()),
            Some(piece) => body.extend_from_slice(&piece),
            None => return Ok(body),
        }
    }
}
