//! Keeps loops over many items from holding a thread: others get their turn, and whoever cancels the step is heard.

use std::time::{Duration, Instant};

/// Work of this long is done at a stretch.
const STRETCH: Duration = Duration::from_millis(5);

/// How long a loop has been at work since it last let others run.
pub(super) struct Pace(Instant);

impl Pace {
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// Lets others run where it is time to.
    pub async fn rest(&mut self) {
        if self.0.elapsed() >= STRETCH {
            tokio::task::yield_now().await;
            self.0 = Instant::now();
        }
    }
}
