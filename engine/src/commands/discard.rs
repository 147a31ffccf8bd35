//! A person decides to leave failed steps as they are.

use crate::{
    definition::Problem,
    error::{Error, Result},
    id::Scope,
    store::dead_letters,
};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// What came of a dead letter's discarding.
#[derive(Debug)]
pub struct Discarded {
    /// The letter.
    pub letter: Uuid,
    /// Ok where it is discarded now, or was before; [`Error::Conflict`] where its step is live or has ended well since;
    /// [`Error::NotFound`] in another workspace.
    pub outcome: Result<()>,
}

/// Discards open letters, for a reason that is kept with them. Discarding twice is a no-op that keeps the first reason. An empty reason is
/// invalid.
pub async fn discard(conn: &mut PgConnection, scope: &Scope, letters: &[Uuid], reason: &str) -> Result<Vec<Discarded>> {
    if reason.trim().is_empty() {
        return Err(Error::Invalid(vec![Problem::new("reason", "", "a reason is needed to discard a dead letter")]));
    }
    let mut tx = conn.begin().await?;
    let mut ids: Vec<Uuid> = dead_letters::find(&mut tx, scope.workspace.0, letters).await?.into_iter().map(|l| l.id).collect();
    ids.sort();
    let states = dead_letters::lock(&mut tx, &ids).await?;
    let mut done = Vec::with_capacity(letters.len());
    for id in letters {
        let outcome = match states.iter().find(|(letter, _)| letter == id).map(|(_, state)| state.as_str()) {
            None => Err(Error::not_found("dead letter", id)),
            Some("discarded") => Ok(()),
            // False only for an id that was given twice, and was open the first time.
            Some("open") => dead_letters::discard(&mut tx, *id, reason).await.map(|_| ()).map_err(Error::from),
            Some(_) => Err(Error::Conflict(format!("dead letter {id} was redriven: its step is live or has ended well"))),
        };
        done.push(Discarded { letter: *id, outcome });
    }
    tx.commit().await?;
    Ok(done)
}
