//! A redriven step runs again, nothing that succeeded does, and events stay gap-free. The invariants are checked after every attempt.

mod limits;
mod maps;
mod races;
mod refused;
mod runs;

use super::{Redrive, redrive};
use crate::{
    drain::{Act, Drain},
    error::ErrorClass,
    id::RunId,
    queries::{
        dead_letters::{self, LetterFilter, LetterState},
        events::{self, EventView},
        runs::{self as run_queries, RunState},
        steps::{self, StepStatus},
    },
    version::Version,
};
use uuid::Uuid;

const FAIL: Act = Act::Fail(ErrorClass::Refused);
const CHAIN: &str = "  a: {t: 1}\n  b: {needs: [a], t: 1}\n  c: {needs: [b], t: 1}\n  x: {t: 1}\n";

async fn letters(d: &mut Drain) -> Vec<(Uuid, String, LetterState)> {
    let list = dead_letters::list(&mut d.conn, &d.scope, &LetterFilter::default(), None, 100).await.expect("letters");
    list.into_iter().rev().map(|l| (l.id, l.path, l.state)).collect()
}

async fn letter(d: &mut Drain, path: &str) -> Uuid {
    let all = letters(d).await;
    all.iter().find(|l| l.1 == path).unwrap_or_else(|| panic!("no letter of {path} in {all:?}")).0
}

async fn redrive_one(d: &mut Drain, path: &str) -> Redrive {
    let id = letter(d, path).await;
    let outcome = redrive(&mut d.conn, &d.versions, &d.scope, &[id]).await.expect("redriven").remove(0).outcome;
    assert_eq!(d.violations().await, Vec::<String>::new(), "after the redrive of {path}");
    outcome
}

async fn status(d: &mut Drain, run: RunId) -> RunState {
    run_queries::show(&mut d.conn, &d.scope, run).await.expect("a run").run.status
}

async fn history(d: &mut Drain, run: RunId, version: &Version) -> Vec<EventView> {
    let all = events::events(&mut d.conn, &d.scope, run, &version.dag, 0, 1000).await.expect("events");
    let numbers: Vec<i32> = all.iter().map(|e| e.seq).collect();
    assert_eq!(numbers, (1..=all.len() as i32).collect::<Vec<_>>(), "{all:?}");
    all
}

fn kinds(events: &[EventView]) -> Vec<String> {
    events.iter().map(|e| e.path.as_ref().map_or(e.kind.clone(), |p| format!("{} {p}", e.kind))).collect()
}

async fn statuses(d: &mut Drain, run: RunId, version: &Version) -> Vec<(String, StepStatus)> {
    let all = steps::steps(&mut d.conn, &d.scope, run, &version.dag).await.expect("steps");
    all.into_iter().map(|s| (s.path, s.status)).collect()
}

fn map(tolerate: &str, body: &str) -> String {
    format!(
        "  m:\n    map:\n      over: ${{{{ [0, 1, 2, 3, 4] }}}}\n      as: it\n{tolerate}      steps:\n{body}  z: {{needs: [m], t: 1}}\n"
    )
}

const ONE: &str = "        s: {t: 1}\n";
const TWO: &str = "        s: {t: 1}\n        u: {needs: [s], t: 1}\n";
const WIDE: &str = "        p: {t: 1}\n        q: {t: 1}\n        s: {needs: [p, q], t: 1}\n";
const NESTED: &str =
    "        inner:\n          map:\n            over: ${{ [0, 1, 2] }}\n            as: jt\n            steps:\n              s: {t: 1}\n";
