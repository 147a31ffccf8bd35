//! What a completing process remembers of the scopes it works on. Only a hint: losing it costs a locked commit or a read, never
//! correctness.

use super::Decided;
use crate::{
    definition::RunFacts,
    id::{FrameIx, RunId, ScopePath, StepIx},
    lifecycle::StepState,
    payload::Payload,
    store::rows::{Lease, VersionedState},
    version::Version,
};
use std::{collections::HashMap, sync::Arc};

/// Past these the whole cache is dropped: it refills from what completions carry.
const MAX_SCOPES: usize = 200_000;
const MAX_BYTES: usize = 128 << 20;

/// What a step looks at, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs {
    pub input: Option<Payload>,
    pub facts: Option<Arc<RunFacts>>,
    /// Outputs by step; none: the step did not succeed.
    pub steps: Vec<(StepIx, Option<Payload>)>,
    pub items: Vec<(StepIx, Payload)>,
    /// Keys of the enclosing items, from the outermost inwards.
    pub keys: Vec<Option<String>>,
    /// Everything that is read is here.
    pub complete: bool,
}

impl Inputs {
    /// How much JSON text a step sees.
    pub fn bytes(&self) -> usize {
        let steps = self.steps.iter().filter_map(|(_, output)| output.as_ref());
        self.input.iter().chain(steps).chain(self.items.iter().map(|(_, item)| item)).map(Payload::len).sum()
    }
}

/// A scope's state with what was learnt on the way.
#[derive(Debug)]
pub(crate) struct CachedScope {
    pub run: RunId,
    pub scope: ScopePath,
    pub state: VersionedState,
    pub input: Option<Payload>,
    pub facts: Option<Arc<RunFacts>>,
    outputs: Vec<(StepIx, Payload)>,
}

impl CachedScope {
    pub fn new(run: RunId, scope: ScopePath, state: VersionedState) -> Self {
        Self { run, scope, state, input: None, facts: None, outputs: vec![] }
    }

    /// Takes over what an older copy of the same scope had learnt; what was written once never changes.
    pub fn inherit(&mut self, older: CachedScope) {
        (self.input, self.facts, self.outputs) = (older.input, older.facts, older.outputs);
    }

    /// Remembers an output that something will read.
    pub fn remember(&mut self, step: StepIx, output: &Payload) {
        self.outputs.push((step, output.clone()));
    }

    fn bytes(&self) -> usize {
        self.outputs.iter().map(|(_, o)| o.len()).sum::<usize>() + self.input.as_ref().map_or(0, Payload::len) + 200
    }

    /// What the work at a lane of this scope looks at, as far as it is known here.
    pub fn inputs(&self, version: &Version, frame: FrameIx, lease: &Lease) -> Inputs {
        let mut inputs = Inputs { complete: true, ..Default::default() };
        let Some(reads) = version.reads(lease) else { return inputs };
        inputs.input = self.input.clone();
        inputs.facts = self.facts.clone();
        inputs.complete = !(reads.input && self.input.is_none() || reads.run && self.facts.is_none()) && reads.items.is_empty();
        for ix in &reads.steps {
            let step = version.dag.step(*ix);
            if step.frame != frame {
                inputs.complete = false;
            } else if self.state.frame.step(step.local) != StepState::Succeeded {
                inputs.steps.push((*ix, None));
            } else if let Some((_, output)) = self.outputs.iter().find(|(known, _)| known == ix) {
                inputs.steps.push((*ix, Some(output.clone())));
            } else {
                inputs.complete = false;
            }
        }
        // Items with keys show them in their path; only the loader knows them.
        inputs.complete &= self.scope.is_root();
        inputs
    }
}

/// Scopes by address.
#[derive(Default)]
pub(crate) struct ScopeCache {
    scopes: HashMap<(RunId, ScopePath), CachedScope>,
    bytes: usize,
}

impl ScopeCache {
    /// Takes out the newest state known of the scope that the group ended steps of: remembered here, or brought along by a completion.
    pub fn take(&mut self, group: &mut [Decided]) -> Option<CachedScope> {
        let key = group.first()?.key();
        let mut best = self.scopes.remove(&key);
        if let Some(scope) = &best {
            self.bytes -= scope.bytes().min(self.bytes);
        }
        for decided in group {
            let Some(state) = decided.loaded.take() else { continue };
            match &mut best {
                Some(scope) if scope.state.version >= state.version => {}
                Some(scope) => scope.state = state,
                None => best = Some(CachedScope::new(key.0, key.1.clone(), state)),
            }
        }
        best
    }

    /// Forgets a scope.
    pub fn forget(&mut self, key: &(RunId, ScopePath)) -> Option<CachedScope> {
        let scope = self.scopes.remove(key)?;
        self.bytes -= scope.bytes().min(self.bytes);
        Some(scope)
    }

    /// Remembers a scope.
    pub fn put(&mut self, scope: CachedScope) {
        if self.scopes.len() >= MAX_SCOPES || self.bytes > MAX_BYTES {
            self.scopes.clear();
            self.bytes = 0;
        }
        self.bytes += scope.bytes();
        self.scopes.insert((scope.run, scope.scope.clone()), scope);
    }
}
