//! What became of the calls that had finished when the worker was killed, and of those in flight: from the attempts on record.

use super::Run;
use anyhow::ensure;
use krowoc_engine::queries::attempts::{self, AttemptStatus, AttemptView};

/// More attempts than the demo can make.
const ALL: i64 = 10_000;

/// A call that has an answer: the same one as long as these three stay.
pub type Finished = (String, u32, chrono::DateTime<chrono::Utc>);

/// The model calls that have answers now.
pub async fn finished(run: &Run) -> anyhow::Result<Vec<Finished>> {
    Ok(load(run).await?.into_iter().filter(is_answer).map(|a| (a.path, a.attempt, a.finished_at)).collect())
}

/// How often calls were made.
pub struct Proof {
    /// Calls that the run needed.
    needed: usize,
    /// Finished at the kill.
    finished: usize,
    /// Of those, with the same answer at the end and no attempt besides.
    reused: usize,
    /// In flight at the kill, made again.
    repeated: usize,
}

impl Proof {
    /// Compares what was finished at the kill with what is on record at the end.
    pub async fn of(run: &Run, kept: &[Finished]) -> anyhow::Result<Self> {
        let all = load(run).await?;
        let untouched = |call: &&Finished| {
            let mut ended = all.iter().filter(|a| a.path == call.0 && a.attempt >= call.1);
            ended.next().is_some_and(|a| is_answer(a) && a.finished_at == call.2) && ended.next().is_none()
        };
        Ok(Self {
            needed: all.iter().filter(|a| is_answer(a)).count(),
            finished: kept.len(),
            reused: kept.iter().filter(untouched).count(),
            repeated: all.iter().filter(|a| a.status == AttemptStatus::Lost).count(),
        })
    }

    /// For people.
    pub fn line(&self) -> String {
        let Self { needed, finished, reused, repeated } = self;
        format!(
            "Proof: of {needed} calls, {finished} had finished when the worker was killed: {reused} reused, {} repeated. \
             In flight and made again: {repeated}.",
            finished - reused
        )
    }

    /// A finished call that was made again, or more lost ones than were in flight, would break the promise.
    pub fn check(&self, in_flight: u32) -> anyhow::Result<()> {
        ensure!(self.reused == self.finished, "a call that had finished was made again");
        ensure!(self.repeated <= in_flight as usize + SLACK, "more calls were lost than were in flight");
        Ok(())
    }
}

/// Between the look and the kill every slot of the map may have ended a call and begun the next; none of them counts twice.
const SLACK: usize = 4;

fn is_answer(attempt: &AttemptView) -> bool {
    attempt.status == AttemptStatus::Succeeded && attempt.usage.is_some()
}

async fn load(run: &Run) -> anyhow::Result<Vec<AttemptView>> {
    let mut conn = run.engine.pool().acquire().await?;
    Ok(attempts::attempts(&mut conn, &run.scope, run.id, &run.dag, None, ALL).await?)
}
