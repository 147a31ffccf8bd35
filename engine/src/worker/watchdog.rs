//! Looks, from the engine's thread, after steps that do not give their threads back: ends attempts whose time is up, has what comes carried
//! out by spare threads where none of the usual ones is left, and takes no more work when those are gone too.

use super::{
    runtimes::{SPARES, Seen},
    shared::Shared,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::MissedTickBehavior;

/// Between two looks. What is found twice is acted upon: an attempt ends within two looks of its limit, and threads that have answered
/// nothing for a second are given up.
const LOOK: Duration = Duration::from_millis(500);
/// So many steps are named in a line of the log.
const NAMED: usize = 10;

pub(super) async fn run(shared: Arc<Shared>) {
    let mut looks = tokio::time::interval(LOOK);
    // A process that was frozen looks once when it goes on, and then waits as ever.
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.closed.cancelled() => return,
            _ = looks.tick() => {}
        }
        if shared.underway.is_busy() || shared.runtimes.standing().is_unusual() {
            look(&shared);
        }
    }
}

fn look(shared: &Shared) {
    shared.underway.look(Instant::now());
    let (keeping, news) = shared.underway.look_after_strays();
    if !news.is_empty() {
        tracing::warn!(
            steps = few(&news, news.len()),
            "attempts have ended and their steps have not: they compute or block where they should not, and keep their threads until they end"
        );
    }
    let seen = shared.runtimes.look();
    let standing = shared.runtimes.standing();
    shared.measures.threads(keeping, standing);
    // Before anything is called back: what is given back must not be claimed again here.
    let takes_work = shared.takes_work(!standing.exhausted);
    for stuck in &seen.stuck {
        let (names, all) = shared.underway.at_work(stuck, NAMED);
        let moved = shared.underway.call_back(stuck);
        // They were made there, and nobody there listens to the database any more.
        shared.readers.forget();
        tracing::error!(
            threads = stuck.number,
            steps = few(&names, all),
            moved,
            "no step thread is left: these steps keep them all; they compute or block where they should not"
        );
    }
    report(&seen);
    match (takes_work, standing.exhausted) {
        (true, true) => tracing::error!(
            failed = seen.failed.as_deref(),
            "steps keep every step thread, and those of {SPARES} spare sets; this worker takes no more work until they give them back, and \
             gives back what has not begun: restart it, and mend those steps"
        ),
        (false, false) => tracing::warn!("step threads are free again; this worker takes work again"),
        _ => {}
    }
}

fn report(seen: &Seen) {
    if let Some(spares) = seen.spare {
        tracing::warn!(spares, "spare step threads carry out what comes");
    }
    for (runtime, after) in &seen.answering {
        tracing::info!(threads = runtime.number, ?after, "step threads are free again");
    }
}

/// Some names of all.
fn few(names: &[String], all: usize) -> String {
    let named: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    match (named.len(), all) {
        (0, _) => "none at work: tasks that steps have spawned keep them".to_owned(),
        (n, all) if n < all => format!("{}, and {} more", named.join(", "), all - n),
        _ => named.join(", "),
    }
}
