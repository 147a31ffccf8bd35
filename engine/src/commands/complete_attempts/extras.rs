//! What ends of steps bring along beside a transition: large payloads, failures with their letters, maps and time limits that are over.

use crate::{
    error::ErrorClass,
    executor::StepError,
    id::{RunId, ScopePath},
    payload::Payload,
    store::{
        blobs,
        holder::Holder,
        maps,
        records::{self, AttemptRecord, DeadLetter},
        rows::Lease,
        runs,
    },
    version::Version,
};
use sqlx::PgConnection;
use std::sync::Arc;

/// What needs statements of its own in the same transaction.
#[derive(Default)]
pub(super) struct Extras {
    /// Payloads that are too large for a row.
    pub blobs: Vec<(RunId, Payload)>,
    pub failures: Vec<Failure>,
    pub finished_maps: Vec<(RunId, ScopePath, i16)>,
    pub untimed: Vec<uuid::Uuid>,
}

/// A step that failed for good.
pub(super) struct Failure {
    pub lease: Lease,
    pub version: Arc<Version>,
    pub error: StepError,
    pub input: Option<Payload>,
    pub ms: i32,
    pub workspace: i32,
    pub generation: i16,
}

impl Failure {
    fn attempt(&self, by: Holder) -> AttemptRecord<'_> {
        AttemptRecord {
            run: self.lease.run,
            scope: &self.lease.scope,
            step: self.lease.step,
            attempt: self.lease.attempt,
            status: if self.error.class == ErrorClass::Lost { "lost" } else { "failed" },
            error: Some(&self.error),
            usage: None,
            ms: self.ms,
            worker: by.worker,
        }
    }

    fn letter<'a>(&'a self, path: &'a str) -> DeadLetter<'a> {
        DeadLetter {
            workspace: self.workspace,
            run: self.lease.run,
            scope: &self.lease.scope,
            step: self.lease.step,
            generation: self.generation,
            attempts: self.lease.attempt,
            path,
            error: &self.error,
            input: self.input.as_ref().map(Payload::as_str),
        }
    }
}

impl Extras {
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.failures.is_empty() && self.finished_maps.is_empty() && self.untimed.is_empty()
    }

    /// What a row keeps of an output: itself, or the hash of what is stored outside.
    pub fn stored(&mut self, run: RunId, output: Option<&Payload>) -> (Option<Payload>, Option<Vec<u8>>) {
        let Some(output) = output else { return (None, None) };
        match output.packed() {
            Some(packed) => {
                self.blobs.push((run, output.clone()));
                (None, Some(packed.hash.to_vec()))
            }
            None => (Some(output.clone()), None),
        }
    }

    /// Applies them, in the caller's transaction.
    pub async fn apply(&self, conn: &mut PgConnection, by: Holder) -> Result<(), sqlx::Error> {
        blobs::insert(conn, &self.blobs).await?;
        for (run, scope, step) in &self.finished_maps {
            maps::remove(conn, *run, scope, *step).await?;
        }
        if !self.untimed.is_empty() {
            runs::clear_timeouts(conn, &self.untimed).await?;
        }
        self.record_failures(conn, by).await
    }

    async fn record_failures(&self, conn: &mut PgConnection, by: Holder) -> Result<(), sqlx::Error> {
        let attempts: Vec<_> = self.failures.iter().map(|f| f.attempt(by)).collect();
        records::insert_attempts(conn, &attempts).await?;
        let dead: Vec<&Failure> = self.failures.iter().filter(|f| f.error.class.leaves_dead_letter()).collect();
        let places: Vec<_> = dead.iter().map(|f| (f.lease.run, &f.lease.scope)).collect();
        let keys = maps::item_keys(conn, &places).await?;
        let paths: Vec<String> = dead.iter().zip(keys).map(|(f, keys)| f.version.path(&f.lease.scope, f.lease.step, &keys)).collect();
        let letters: Vec<_> = dead.iter().zip(&paths).map(|(f, path)| f.letter(path)).collect();
        records::insert_dead_letters(conn, &letters).await
    }
}
