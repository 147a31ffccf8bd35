//! The state of a frame (a run's steps, or those of one map item) and its one transition: a step has ended, so which may run, which
//! never will, and is the frame over?

use crate::{
    definition::{Dag, Join, Step},
    id::FrameIx,
};

/// Where a step stands in its frame. What a live step is doing (ready, leased, waiting for what) is on its lane.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "the words of DESIGN.md section 6")]
pub enum StepState {
    Pending = 0,
    Live = 1,
    Succeeded = 2,
    Skipped = 3,
    Failed = 4,
    UpstreamFailed = 5,
    Cancelled = 6,
}

impl StepState {
    /// Every state, in the order of their codes.
    pub const ALL: [Self; 7] =
        [Self::Pending, Self::Live, Self::Succeeded, Self::Skipped, Self::Failed, Self::UpstreamFailed, Self::Cancelled];

    /// Will it change no more (but by a redrive)?
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Live)
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// How a live step ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the words of DESIGN.md section 6")]
pub enum Ended {
    Succeeded,
    Skipped,
    Failed,
}

/// How a frame ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameEnd {
    /// No step that matters failed.
    Succeeded,
    /// The first step, in the file's order, that failed or could not run because of a failure.
    Failed {
        /// Its position in the frame.
        step: u16,
    },
}

/// What follows from a step's end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Advance {
    /// Steps that are live from now on, by position, in the order in which they were found.
    pub released: Vec<u16>,
    /// Set when every step has ended.
    pub end: Option<FrameEnd>,
}

/// An event that the state machine does not allow: a bug, or a stale caller that got past its guard.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("step {step} is {state:?} and can't become {event:?}")]
pub struct Illegal {
    /// The step's position.
    pub step: u16,
    /// Where it stands.
    pub state: StepState,
    /// What was to happen.
    pub event: Ended,
}

/// A frame's compact state: one byte a step, with the next free lane and the number of steps that have not ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameState {
    next_lane: u32,
    open: u16,
    steps: Vec<StepState>,
}

const HEADER: usize = 6;

impl FrameState {
    /// The frame at its start: the steps without predecessors are live, on lanes 0, 1, …
    pub fn start(dag: &Dag, frame: FrameIx) -> Self {
        let frame = dag.frame(frame);
        let mut steps = vec![StepState::Pending; frame.members.len()];
        for root in &frame.roots {
            steps[usize::from(dag.step(*root).local)] = StepState::Live;
        }
        Self { next_lane: frame.roots.len() as u32, open: steps.len() as u16, steps }
    }

    /// A frame put together again from how its steps ended; the rest is pending. Used by redrive, which then settles it.
    pub fn from_steps(steps: Vec<StepState>, next_lane: u32) -> Self {
        let open = steps.iter().filter(|s| !s.is_terminal()).count() as u16;
        Self { next_lane, open, steps }
    }

    /// As stored: next lane (u32), open steps (u16), both little-endian, then a byte a step.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.steps.len());
        bytes.extend_from_slice(&self.next_lane.to_le_bytes());
        bytes.extend_from_slice(&self.open.to_le_bytes());
        bytes.extend(self.steps.iter().map(|s| *s as u8));
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote; nothing for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, steps) = bytes.split_at_checked(HEADER)?;
        let steps = steps.iter().map(|code| StepState::from_code(*code)).collect::<Option<Vec<_>>>()?;
        let (lane, open) = header.split_at(4);
        Some(Self { next_lane: u32::from_le_bytes(lane.try_into().ok()?), open: u16::from_le_bytes(open.try_into().ok()?), steps })
    }

    /// Where a step stands, by position.
    pub fn step(&self, local: u16) -> StepState {
        self.steps[usize::from(local)]
    }

    /// Every step's state, by position.
    pub fn steps(&self) -> &[StepState] {
        &self.steps
    }

    /// A lane number that the frame has not used yet.
    pub fn open_lane(&mut self) -> i32 {
        self.next_lane += 1;
        (self.next_lane - 1) as i32
    }

    /// A live step ended. Skips and upstream failures are carried on to every step that they decide.
    pub fn advance(&mut self, dag: &Dag, frame: FrameIx, local: u16, ended: Ended) -> Result<Advance, Illegal> {
        let state = self.step(local);
        if state != StepState::Live {
            return Err(Illegal { step: local, state, event: ended });
        }
        self.set(
            local,
            match ended {
                Ended::Succeeded => StepState::Succeeded,
                Ended::Skipped => StepState::Skipped,
                Ended::Failed => StepState::Failed,
            },
        );
        Ok(self.settle(dag, frame, vec![local]))
    }

    /// Decides every pending step below the given ones whose predecessors have all ended.
    pub fn settle(&mut self, dag: &Dag, frame: FrameIx, from: Vec<u16>) -> Advance {
        let members = &dag.frame(frame).members;
        let mut advance = Advance::default();
        // A work list, not recursion: a skip may travel down ten thousand steps.
        let mut work = from;
        while let Some(done) = work.pop() {
            for next in &dag.step(members[usize::from(done)]).successors {
                if self.step(*next) != StepState::Pending {
                    continue;
                }
                match self.joined(dag, frame, *next) {
                    None => {}
                    Some(StepState::Live) => {
                        self.steps[usize::from(*next)] = StepState::Live;
                        advance.released.push(*next);
                    }
                    Some(decided) => {
                        self.set(*next, decided);
                        work.push(*next);
                    }
                }
            }
        }
        if self.open == 0 {
            advance.end = Some(self.end(dag, frame));
        }
        advance
    }

    /// Puts a failed step and everything that failed because of it back: the step is live, what is below it pending again.
    pub fn reopen(&mut self, dag: &Dag, frame: FrameIx, local: u16) {
        let members = &dag.frame(frame).members;
        self.put(local, StepState::Live);
        let mut work = vec![local];
        while let Some(step) = work.pop() {
            for next in &dag.step(members[usize::from(step)]).successors {
                if self.step(*next) == StepState::UpstreamFailed {
                    self.put(*next, StepState::Pending);
                    work.push(*next);
                }
            }
        }
    }

    fn set(&mut self, local: u16, state: StepState) {
        self.steps[usize::from(local)] = state;
        self.open -= 1;
    }

    fn put(&mut self, local: u16, state: StepState) {
        if self.steps[usize::from(local)].is_terminal() {
            self.open += 1;
        }
        self.steps[usize::from(local)] = state;
    }

    /// What a pending step becomes once its predecessors have all ended; nothing while one has not.
    fn joined(&self, dag: &Dag, frame: FrameIx, local: u16) -> Option<StepState> {
        let members = &dag.frame(frame).members;
        let step = dag.step(members[usize::from(local)]);
        let (mut succeeded, mut skipped, mut failed) = (false, false, false);
        for dep in &step.deps {
            match joins_as(dag.step(members[usize::from(*dep)]), self.step(*dep))? {
                Ended::Succeeded => succeeded = true,
                Ended::Skipped => skipped = true,
                Ended::Failed => failed = true,
            }
        }
        Some(join(step.join, succeeded, skipped, failed))
    }

    fn end(&self, dag: &Dag, frame: FrameIx) -> FrameEnd {
        let members = &dag.frame(frame).members;
        let failed = (0u16..).zip(members).find(|(local, ix)| {
            !dag.step(**ix).allow_failure
                && matches!(self.step(*local), StepState::Failed | StepState::UpstreamFailed | StepState::Cancelled)
        });
        match failed {
            Some((step, _)) => FrameEnd::Failed { step },
            None => FrameEnd::Succeeded,
        }
    }
}

/// How a predecessor's end counts in a join; nothing while it has not ended.
fn joins_as(step: &Step, state: StepState) -> Option<Ended> {
    match state {
        StepState::Pending | StepState::Live => None,
        StepState::Succeeded => Some(Ended::Succeeded),
        StepState::Skipped => Some(Ended::Skipped),
        StepState::Failed | StepState::UpstreamFailed | StepState::Cancelled if step.allow_failure => Some(Ended::Skipped),
        StepState::Failed | StepState::UpstreamFailed | StepState::Cancelled => Some(Ended::Failed),
    }
}

/// The join table of DESIGN.md section 6. A step without predecessors runs.
pub fn join(rule: Join, some_succeeded: bool, some_skipped: bool, some_failed: bool) -> StepState {
    use StepState::{Live, Skipped, UpstreamFailed};
    match (rule, some_failed) {
        (Join::AllDone, _) => Live,
        (Join::AnySucceeded, _) if some_succeeded => Live,
        (Join::AllSucceeded | Join::NoneFailed | Join::AnySucceeded, true) => UpstreamFailed,
        (Join::NoneFailed, false) => Live,
        (Join::AllSucceeded, false) if some_skipped => Skipped,
        (Join::AnySucceeded, false) if some_skipped => Skipped,
        (Join::AllSucceeded | Join::AnySucceeded, false) => Live,
    }
}
