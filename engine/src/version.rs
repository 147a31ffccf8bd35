//! A workflow version as a process holds it: compiled once, shared by every run of it.

use crate::{
    definition::{Action, Dag, MapPlan, Reads, Step, restore},
    error::{Error, Result},
    executor::StepKinds,
    id::{FrameIx, ScopePath, StepIx, VersionId, WorkspaceId},
    lifecycle::FrameState,
    path,
    store::{rows::Lease, workers, workflows},
};
use sqlx::PgConnection;
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

/// A compiled version with what the store calls its parts.
#[derive(Debug)]
pub struct Version {
    /// Its id.
    pub id: VersionId,
    /// The workspace whose workflow it is a version of.
    pub workspace: WorkspaceId,
    /// Its steps and edges.
    pub dag: Dag,
    /// The task queue of each step, by index.
    pub(crate) queues: Vec<i16>,
    /// Does anything read this step's output? Only then is it worth remembering.
    pub(crate) read: Vec<bool>,
}

impl Version {
    fn new(id: VersionId, workspace: WorkspaceId, dag: Dag, queues: Vec<i16>) -> Self {
        let mut read = vec![false; dag.steps.len()];
        let all = dag.steps.iter().map(|s| &s.reads).chain(dag.steps.iter().filter_map(collect_reads)).chain([&dag.output_reads]);
        for ix in all.flat_map(|r| &r.steps) {
            read[ix.at()] = true;
        }
        Self { id, workspace, dag, queues, read }
    }

    /// The frame that is carried out in a scope.
    pub(crate) fn frame_of(&self, scope: &ScopePath) -> Result<FrameIx> {
        self.dag.frame_of(scope).ok_or_else(|| Error::Internal(format!("{scope:?} names no map of version {}", self.id.0)))
    }

    /// The step a lane is at; none for entry and finish.
    pub(crate) fn step(&self, step: i16) -> Option<(StepIx, &Step)> {
        let ix = StepIx(u16::try_from(step).ok()?);
        self.dag.steps.get(ix.at()).map(|s| (ix, s))
    }

    /// What the work at a lane looks at.
    pub(crate) fn reads(&self, lease: &Lease) -> Option<&Reads> {
        match (lease.step, self.step(lease.step)) {
            (Lease::FINISH, _) => Some(&self.dag.output_reads),
            (_, Some((_, step))) if lease.phase == Lease::FILLED => collect_reads(step),
            (_, Some((_, step))) => Some(&step.reads),
            _ => None,
        }
    }

    /// Must anything be read from the database before the work at a lane can be carried out?
    pub(crate) fn needs_loading(&self, lease: &Lease) -> bool {
        let reads = self.reads(lease).is_some_and(|r| r.input || r.run || !r.steps.is_empty() || !r.items.is_empty());
        reads || self.is_keyed(&lease.scope)
    }

    /// Do enclosing items have keys, which paths show?
    pub(crate) fn is_keyed(&self, scope: &ScopePath) -> bool {
        scope.segments().any(|(map, _)| self.map(map).is_some_and(|plan| plan.key.is_some()))
    }

    /// A step as a map.
    pub(crate) fn map(&self, ix: StepIx) -> Option<&MapPlan> {
        match self.dag.steps.get(ix.at()).map(|s| &s.action) {
            Some(Action::Map(plan)) => Some(plan),
            _ => None,
        }
    }

    /// The state with which an item of a map starts; none where the body is one step.
    pub(crate) fn item_template(&self, body: FrameIx) -> Option<FrameState> {
        (self.dag.frame(body).members.len() > 1).then(|| FrameState::start(&self.dag, body))
    }

    /// Are a map's items leased in bundles? Where an item is one step, and one that ends by its attempt: not by items of its own, nor later.
    pub(crate) fn bundles(&self, body: FrameIx) -> bool {
        match self.dag.frame(body).members[..] {
            [only] => matches!(self.dag.step(only).action, Action::Task { .. }),
            _ => false,
        }
    }

    /// A step's address as people write it: `review[3].findings`; `keys` name items from the outermost inwards, numbers where absent.
    /// No two steps have the same, whatever their keys are: providers are told it as an idempotency key.
    pub fn path(&self, scope: &ScopePath, step: i16, keys: &[Option<String>]) -> String {
        let mut keys = keys.iter();
        let key = |_: &ScopePath, _, _| keys.next().cloned().flatten();
        let own = match self.step(step) {
            Some((ix, _)) => return path::print(&self.dag, scope, ix, key),
            None if step == Lease::FINISH => "output",
            None => "entry",
        };
        match path::print_scope(&self.dag, scope, key) {
            item if item.is_empty() => own.to_owned(),
            item => format!("{item}.{own}"),
        }
    }
}

fn collect_reads(step: &Step) -> Option<&Reads> {
    match &step.action {
        Action::Map(plan) => Some(&plan.collect_reads),
        _ => None,
    }
}

/// The versions this process has met.
#[derive(Default)]
pub struct Versions {
    known: RwLock<HashMap<VersionId, Arc<Version>>>,
}

impl Versions {
    /// A version that has been loaded before.
    pub fn get(&self, id: VersionId) -> Option<Arc<Version>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// A version, loaded from the database where it is new here.
    pub async fn load(&self, conn: &mut PgConnection, id: VersionId) -> Result<Arc<Version>> {
        if let Some(version) = self.get(id) {
            return Ok(version);
        }
        let (workspace, definition, prompts) =
            workflows::load(conn, id).await?.ok_or_else(|| Error::not_found("workflow version", id.0))?;
        let corrupt = |e: serde_json::Error| Error::Internal(format!("workflow version {} is not readable: {e}", id.0));
        let definition = serde_json::from_str(&definition).map_err(corrupt)?;
        let dag = restore(&definition, serde_json::from_str(&prompts).map_err(corrupt)?).map_err(Error::Invalid)?;
        let names: Vec<String> = dag.steps.iter().map(|s| s.queue.clone()).collect();
        let queues = workers::queue_ids(conn, &names).await?;
        let version = Arc::new(Version::new(id, workspace, dag, queues));
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(id, version.clone());
        Ok(version)
    }
}

/// What a process shares between its commands and its workers.
#[derive(Clone)]
pub struct Registry {
    /// The step kinds it knows.
    pub kinds: Arc<StepKinds>,
    /// The versions it has met.
    pub versions: Arc<Versions>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::compiled;

    #[test]
    fn no_two_items_have_the_same_address_whatever_their_keys_are() {
        let inner = "{over: [1], key: \"${{ item }}\", steps: {c: {t: 1}}}";
        let steps = format!("  m: {{map: {{over: [1], as: o, key: \"${{{{ o }}}}\", steps: {{n: {{map: {inner}}}}}}}}}");
        let dag = Arc::into_inner(compiled(&steps).dag).expect("the only holder");
        let version = Version::new(VersionId(1), WorkspaceId(1), dag, vec![0; 3]);
        let scope = ScopePath::root().item(StepIx(0), 0).item(StepIx(1), 0);
        let path = |keys: [&str; 2]| version.path(&scope, 2, &keys.map(|key| Some(key.to_owned())));
        assert_eq!(path(["a", "b"]), "m[a].n[b].c");
        assert_eq!(version.path(&scope, 2, &[Some("a".into()), None]), "m[a].n[0].c");
        assert_eq!(version.path(&scope, Lease::ENTRY, &[]), "m[0].n[0].entry");
        assert_eq!(version.path(&ScopePath::root(), Lease::FINISH, &[]), "output");
        assert_ne!(path(["a].n[b", "c"]), path(["a", "b].n[c"]));
    }
}
