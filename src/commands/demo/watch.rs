//! Looks at the run in the database until it has come where the demo waits for it, and draws how far it is.

use super::Run;
use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use krowoc_engine::queries::{
    runs,
    steps::{self, MapProgress},
};
use std::time::Duration;
use tokio::process::Child;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

pub struct Watch<'a> {
    run: &'a Run,
    bar: ProgressBar,
}

impl<'a> Watch<'a> {
    pub fn new(run: &'a Run) -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("          {bar:40} {pos} of {len} parts read") {
            bar.set_style(style);
        }
        Self { run, bar }
    }

    /// Until half of the map's items are done and more are in flight.
    pub async fn until_half(&self, worker: &mut Child) -> anyhow::Result<MapProgress> {
        loop {
            still_runs(worker)?;
            if self.ended().await? {
                bail!("the run ended before its worker could be killed");
            }
            if let Some(items) = self.items().await?
                && items.done * 2 >= items.total
                && items.running > 0
            {
                self.bar.finish_and_clear();
                return Ok(items);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Until the run has ended.
    pub async fn until_end(&self, worker: &mut Child) -> anyhow::Result<()> {
        self.bar.reset();
        while !self.ended().await? {
            still_runs(worker)?;
            self.items().await?;
            tokio::time::sleep(LOOK).await;
        }
        self.bar.finish_and_clear();
        Ok(())
    }

    async fn ended(&self) -> anyhow::Result<bool> {
        let detail = runs::show(&mut *self.run.engine.pool().acquire().await?, &self.run.scope, self.run.id).await?;
        Ok(detail.run.finished_at.is_some())
    }

    async fn items(&self) -> anyhow::Result<Option<MapProgress>> {
        let mut conn = self.run.engine.pool().acquire().await?;
        let steps = steps::steps(&mut conn, &self.run.scope, self.run.id, &self.run.dag).await?;
        let items = steps.into_iter().find_map(|step| step.items);
        if let Some(items) = items {
            self.bar.set_length(items.total.into());
            self.bar.set_position(items.done.into());
        }
        Ok(items)
    }
}

fn still_runs(worker: &mut Child) -> anyhow::Result<()> {
    match worker.try_wait()? {
        None => Ok(()),
        Some(status) => bail!("the worker has ended by itself ({status})"),
    }
}
