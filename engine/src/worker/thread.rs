//! A thread for the engine's own tasks. What steps do to the threads of the process, up to blocking them all, keeps no lease from being
//! renewed and no result from being recorded; and on one thread a result wakes no other on its way to the next step. Nothing is done here
//! that takes long: steps, their rendering and the packing of what they leave are on the caller's runtime.

use crate::error::{Error, Result};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Runs tasks until it is dropped.
pub(super) struct EngineThread {
    pub handle: Handle,
    _ends: DropGuard,
}

impl EngineThread {
    pub async fn start() -> Result<Self> {
        let failed = |e: std::io::Error| Error::Internal(format!("the engine's thread can't be started: {e}"));
        let (ended, (started, handle)) = (CancellationToken::new(), oneshot::channel());
        let ends = ended.clone().drop_guard();
        // Made where it is dropped: a runtime can't be dropped by a task of another.
        let work = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let _ = started.send(Ok(runtime.handle().clone()));
                runtime.block_on(ended.cancelled());
            }
            Err(e) => {
                let _ = started.send(Err(e));
            }
        };
        std::thread::Builder::new().name("krowoc-engine".into()).spawn(work).map_err(failed)?;
        let handle = handle.await.map_err(|_| Error::Internal("the engine's thread ended at once".into()))?.map_err(failed)?;
        Ok(Self { handle, _ends: ends })
    }
}
