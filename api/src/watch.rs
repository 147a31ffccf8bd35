//! Who waits for runs to move is woken here: one statement per tick asks for all watched runs of the process at once, and none is asked where
//! nobody watches. What it says is a hint; whoever is woken reads the rows.

use crate::problem::{Code, Said};
use krowoc_engine::{Engine, RunId, queries::events};
use sqlx::PgPool;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until},
};

/// How late a movement is noticed at the latest, the statement itself left out.
const TICK: Duration = Duration::from_millis(50);
/// Between two looks at a database that does not answer.
const AWAY: Duration = Duration::from_secs(1);
/// Streams and waits that are open at once. Each is small, but none is free.
const PLACES: usize = 4096;

/// The runs that are watched; none once the watch is closed.
type Runs = Option<HashMap<RunId, watch::Sender<Seen>>>;

/// How far a run was seen to have come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Nobody has looked yet.
    NotYet,
    /// This far.
    At {
        /// The number of its last event.
        seq: i32,
        /// It has ended.
        ended: bool,
    },
    /// It is not there any more.
    Gone,
}

/// The process's watch. Cloning it is free; the task behind it ends with the last clone.
#[derive(Clone)]
pub struct Watch(Arc<Inner>);

struct Inner {
    pool: PgPool,
    runs: Mutex<Runs>,
    begun: Arc<Notify>,
    places: Arc<Semaphore>,
}

/// A place among those who wait; given back when it is dropped.
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// A run that is being watched, until this is dropped.
pub struct Watched(watch::Receiver<Seen>);

impl Watch {
    /// Watches runs of an engine.
    pub fn new(engine: &Engine) -> Self {
        let begun = Arc::new(Notify::new());
        let inner = Inner {
            pool: engine.pool().clone(),
            runs: Mutex::new(Some(HashMap::new())),
            begun: begun.clone(),
            places: Arc::new(Semaphore::new(PLACES)),
        };
        let inner = Arc::new(inner);
        tokio::spawn(look_around(Arc::downgrade(&inner), begun));
        Self(inner)
    }

    /// A place, if there is one.
    pub fn place(&self) -> Result<Place, Said> {
        let permit = self.0.places.clone().try_acquire_owned();
        permit
            .map(|permit| Place { _permit: permit })
            .map_err(|_| Said::new(Code::Overloaded, "too many streams and waits are open at once"))
    }

    /// Watches a run from now on.
    pub fn run(&self, run: RunId) -> Watched {
        let receiver = match &mut *self.0.runs() {
            Some(runs) => runs.entry(run).or_insert_with(|| watch::channel(Seen::NotYet).0).subscribe(),
            // Nobody will ever say anything, which is what the receiver then says.
            None => watch::channel(Seen::NotYet).1,
        };
        self.0.begun.notify_one();
        Watched(receiver)
    }

    /// Ends every stream and every wait, and those that are yet to come: the process stops.
    pub fn close(&self) {
        *self.0.runs() = None;
    }

    /// How many runs are being watched.
    #[cfg(test)]
    fn watched(&self) -> usize {
        self.0.runs().as_ref().map_or(0, HashMap::len)
    }
}

impl Watched {
    /// What has been seen so far is known from here on.
    pub fn mark(&mut self) {
        self.0.mark_unchanged();
    }

    /// The run has moved since the mark. None when nobody looks any more.
    pub async fn moved(&mut self) -> Option<()> {
        self.0.changed().await.ok()
    }

    /// The run has ended, or is gone. None when nobody looks any more.
    pub async fn ended(&mut self) -> Option<()> {
        self.0.wait_for(|seen| matches!(seen, Seen::At { ended: true, .. } | Seen::Gone)).await.ok().map(|_| ())
    }
}

impl Inner {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runs that somebody watches; the others are forgotten.
    fn watched(&self) -> Vec<RunId> {
        let mut runs = self.runs();
        let Some(runs) = &mut *runs else { return vec![] };
        runs.retain(|_, sender| sender.receiver_count() > 0);
        runs.keys().copied().collect()
    }

    /// One look at all of them.
    async fn look(&self, watched: &[RunId]) -> krowoc_engine::Result<()> {
        let heads = events::heads(&mut *self.pool.acquire().await?, watched).await?;
        let heads: HashMap<_, _> = heads.into_iter().collect();
        let runs = self.runs();
        for run in watched {
            let Some(sender) = runs.as_ref().and_then(|runs| runs.get(run)) else { continue };
            let now = heads.get(run).map_or(Seen::Gone, |head| Seen::At { seq: head.seq, ended: head.ended });
            sender.send_if_modified(|seen| std::mem::replace(seen, now) != now);
        }
        Ok(())
    }
}

async fn look_around(inner: Weak<Inner>, begun: Arc<Notify>) {
    loop {
        let next = {
            let Some(inner) = inner.upgrade() else { return };
            let watched = inner.watched();
            if watched.is_empty() {
                None
            } else {
                let began = Instant::now();
                match inner.look(&watched).await {
                    Ok(()) => Some(began + TICK),
                    Err(error) => {
                        tracing::debug!(%error, "watched runs could not be looked at");
                        Some(began + AWAY)
                    }
                }
            }
        };
        match next {
            Some(next) => sleep_until(next).await,
            // Dropping the last clone drops its share of the notification too, but nobody is told: a look now and then sees it.
            None => drop(tokio::time::timeout(AWAY, begun.notified()).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use krowoc_engine::{executor::StepKinds, testing::TestDatabase};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_run_that_is_not_there_is_said_to_be_gone_and_nobody_who_left_is_kept() {
        let url = krowoc_postgres::testing::cluster().expect("a server");
        let database = TestDatabase::create(&url).await.expect("a database");
        let engine = database.engine(StepKinds::new()).await.expect("an engine");
        let watch = Watch::new(&engine);
        let mut watched = watch.run(RunId::new());
        tokio::time::timeout(Duration::from_secs(60), watched.ended()).await.expect("in time").expect("seen");
        drop(watched);
        tokio::time::timeout(Duration::from_secs(60), async {
            while watch.watched() > 0 {
                tokio::time::sleep(TICK).await;
            }
        })
        .await
        .expect("forgotten");
        watch.close();
        assert_eq!(watch.run(RunId::new()).ended().await, None, "a watch that is closed says so");
        engine.pool().close().await;
        database.drop_database().await.expect("dropped");
    }
}
