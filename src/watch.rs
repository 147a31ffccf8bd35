//! Notices changes of files below a folder, a burst of them as one: editors write a file in several steps.

use anyhow::Context;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::{path::Path, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// A burst is over when nothing has changed for so long.
const QUIET: Duration = Duration::from_millis(100);
/// A burst that does not end is interrupted.
const LONGEST: Duration = Duration::from_secs(1);

/// Watches from its start until it is dropped.
pub struct Watch {
    changes: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches a folder and everything below it.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let (heard, changes) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            match event {
                // Reading a file is an event too; whoever reads because of it would never come to rest.
                Ok(Event { kind: EventKind::Access(_), .. }) => return,
                Ok(_) => {}
                // Something may have been missed, so that it is time to look.
                Err(error) => tracing::warn!(%error, "watching files"),
            }
            // Full: somebody will look anyway.
            let _ = heard.try_send(());
        });
        let mut watcher = watcher.context("files can't be watched")?;
        watcher.watch(folder, RecursiveMode::Recursive).with_context(|| format!("{} can't be watched", folder.display()))?;
        Ok(Self { changes, _watcher: watcher })
    }

    /// Returns after the next burst of changes; may be dropped while it waits.
    pub async fn changed(&mut self) {
        // The sender lives in the watcher, so there is always one.
        let _ = self.changes.recv().await;
        let latest = Instant::now() + LONGEST;
        while timeout_at(latest.min(Instant::now() + QUIET), self.changes.recv()).await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn changes_below_a_folder_are_noticed_and_reading_is_not_a_change() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("prompts")).expect("made");
        let file = folder.path().join("prompts/p.md");
        let mut watch = Watch::start(folder.path()).expect("watched");
        fs::write(&file, "one").expect("written");
        timeout_at(Instant::now() + Duration::from_secs(20), watch.changed()).await.expect("noticed");
        fs::read(&file).expect("read");
        fs::read_dir(folder.path()).expect("read").count();
        assert!(timeout_at(Instant::now() + Duration::from_millis(500), watch.changed()).await.is_err(), "reading was taken for a change");
        fs::remove_file(&file).expect("removed");
        timeout_at(Instant::now() + Duration::from_secs(20), watch.changed()).await.expect("noticed");
    }
}
