//! A thread for the engine's own tasks. What a step does to the process's threads, up to blocking them all, keeps no lease from being renewed
//! and no result from being recorded; and on one thread a result needs no other thread to be woken on its way to the next step.

use crate::error::{Error, Result};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Runs tasks until it is dropped.
pub(super) struct EngineThread {
    pub handle: Handle,
    _ends: DropGuard,
}

impl EngineThread {
    pub fn start() -> Result<Self> {
        let failed = |e: std::io::Error| Error::Internal(format!("the engine's thread can't be started: {e}"));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (handle, ended) = (runtime.handle().clone(), CancellationToken::new());
        let ends = ended.clone().drop_guard();
        std::thread::Builder::new().name("krowoc-engine".into()).spawn(move || runtime.block_on(ended.cancelled())).map_err(failed)?;
        Ok(Self { handle, _ends: ends })
    }
}
