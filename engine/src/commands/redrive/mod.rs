//! A person sends steps that failed for good back to work: same run, same version, nothing that succeeded runs again.
//!
//! [`reopen`] puts scopes and the run back to where the step can run, [`maps`] the maps around it. A run is one transaction; locks are taken
//! in the stated order. A run that has ended has none but its header and letters, in the order in which retention takes them.

mod maps;
mod reopen;
#[cfg(test)]
mod tests;

use super::{leave, tries::Tries};
use crate::{
    error::{Error, Result},
    fail_point::{self, Site},
    id::{RunId, Scope, ScopePath},
    store::{
        dead_letters::{self, Letter},
        redrive as store,
        rows::Lease,
        runs,
    },
    version::Versions,
};
use reopen::Reopening;
use sqlx::{Connection, PgConnection};
use std::collections::HashMap;
use uuid::Uuid;

/// What came of a dead letter's redrive.
#[derive(Debug)]
pub struct Redriven {
    /// The letter.
    pub letter: Uuid,
    /// Its run and the step's address; none if there is no such letter in the workspace.
    pub step: Option<(RunId, String)>,
    /// What happened.
    pub outcome: Redrive,
}

/// What happened to a dead letter.
#[derive(Debug)]
pub enum Redrive {
    /// Its step is ready, its counters at zero.
    Redriven,
    /// Its step is live or has ended well since: nothing was changed.
    AlreadyRedriven,
    /// It may not be redriven ([`Error::Conflict`]) or is not there ([`Error::NotFound`]): nothing was changed.
    Refused(Error),
}

/// Redrives letters, each run's in a transaction of its own. What a letter came to stands in the answer, in the order of the ids; an error
/// is the database's, and calling again with the same ids is safe.
pub async fn redrive(conn: &mut PgConnection, versions: &Versions, scope: &Scope, letters: &[Uuid]) -> Result<Vec<Redriven>> {
    let found = dead_letters::find(conn, scope.workspace.0, letters).await?;
    let mut by_run: HashMap<RunId, Vec<&Letter>> = HashMap::new();
    // In the caller's order: where one letter opens what another lies in, either order must give the same.
    for id in letters {
        if let Some(letter) = found.iter().find(|l| l.id == *id) {
            by_run.entry(letter.run).or_default().push(letter);
        }
    }
    let mut outcomes = HashMap::new();
    for (run, letters) in by_run {
        let mut tries = Tries::default();
        let done = loop {
            match in_run(conn, versions, scope, run, &letters).await {
                Ok(Some(done)) => break done,
                Ok(None) if tries.left() => {}
                Ok(None) => return Err(Error::Internal(format!("the header of run {run} and its scopes say different things"))),
                Err(e) if tries.another(&e) => {}
                Err(e) => return Err(e),
            }
        };
        outcomes.extend(done);
    }
    Ok(letters
        .iter()
        .map(|id| Redriven {
            letter: *id,
            step: found.iter().find(|l| l.id == *id).map(|l| (l.run, l.path.clone())),
            // An id that was given twice was redriven the first time.
            outcome: match found.iter().any(|l| l.id == *id) {
                true => outcomes.remove(id).unwrap_or(Redrive::AlreadyRedriven),
                false => Redrive::Refused(Error::not_found("dead letter", id)),
            },
        })
        .collect())
}

/// One run's letters; nothing if the run was opened by another between the look at its scopes and the lock on its header.
async fn in_run(
    conn: &mut PgConnection,
    versions: &Versions,
    scope: &Scope,
    run: RunId,
    letters: &[&Letter],
) -> Result<Option<HashMap<Uuid, Redrive>>> {
    let mut tx = conn.begin().await?;
    let outcomes = redrive_in(&mut tx, versions, scope, run, letters).await;
    match &outcomes {
        Ok(Some(done)) if done.values().any(|o| matches!(o, Redrive::Redriven)) => fail_point::around(Site::Redrive, tx.commit()).await?,
        _ => leave(tx).await,
    }
    outcomes
}

async fn redrive_in(
    tx: &mut PgConnection,
    versions: &Versions,
    scope: &Scope,
    run: RunId,
    letters: &[&Letter],
) -> Result<Option<HashMap<Uuid, Redrive>>> {
    let scopes = runs::lock_all_scopes(tx, run).await?;
    let live = scopes.iter().any(|s| s.scope == ScopePath::root());
    let maps = store::maps::lock(tx, run).await?;
    store::maps::lock_lanes(tx, run, Lease::FINISH).await?;
    let Some(header) = store::lock_run(tx, run).await? else {
        // Retention has taken it since its letters were found.
        return Ok(Some(letters.iter().map(|l| (l.id, Redrive::Refused(Error::not_found("dead letter", l.id)))).collect()));
    };
    let ids: Vec<Uuid> = letters.iter().map(|l| l.id).collect();
    let states: HashMap<Uuid, String> = dead_letters::lock(tx, &ids).await?.into_iter().collect();
    if header.status.is_terminal() == live {
        return Ok(None);
    }
    let version = versions.load(tx, crate::id::VersionId(header.workflow_version)).await?;
    let mut reopening = Reopening::new(run, &scope.actor, header, version, scopes, maps);
    let mut outcomes = HashMap::new();
    for letter in letters {
        if outcomes.contains_key(&letter.id) {
            continue;
        }
        let outcome = match states.get(&letter.id).map(String::as_str) {
            None => Redrive::Refused(Error::not_found("dead letter", letter.id)),
            Some("discarded") => Redrive::Refused(Error::Conflict(format!("dead letter {} was discarded", letter.id))),
            Some(_) => reopening.redrive(tx, letter).await?,
        };
        outcomes.insert(letter.id, outcome);
    }
    if outcomes.values().any(|o| matches!(o, Redrive::Redriven)) {
        reopening.save(tx).await?;
    }
    Ok(Some(outcomes))
}
