//! SIGTERM, SIGINT and SIGHUP (a terminal that was closed), as those hear them who stop in good order: the first asks, the second insists.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// These signals, from now on; the process no longer ends by itself on them.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Starts to listen. Signals that come before somebody asks are kept, those of one kind as one.
    pub fn listen() -> anyhow::Result<Self> {
        let hear = |kind| signal(kind).context("signals can't be heard");
        Ok(Self {
            terminate: hear(SignalKind::terminate())?,
            interrupt: hear(SignalKind::interrupt())?,
            hang_up: hear(SignalKind::hangup())?,
        })
    }

    /// The next one's name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}
