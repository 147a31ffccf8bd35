//! The state of a frame (a run's steps, or those of one map item) and its one transition: a step has ended, so which may run, which
//! never will, and is the frame over?

use super::join::{join, joins_as};
use crate::{definition::Dag, id::FrameIx};

/// Where a step stands in its frame. What a live step is doing (ready, leased, waiting for what) is on its lane.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it")]
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

    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Live => "live",
            Self::Succeeded => "succeeded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::UpstreamFailed => "upstream_failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// How a live step ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Ended {
    Succeeded,
    Skipped,
    Failed,
}

impl Ended {
    /// Every end.
    pub const ALL: [Self; 3] = [Self::Succeeded, Self::Skipped, Self::Failed];
}

impl From<Ended> for StepState {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Succeeded => Self::Succeeded,
            Ended::Skipped => Self::Skipped,
            Ended::Failed => Self::Failed,
        }
    }
}

/// How a frame ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameEnd {
    /// No step that matters failed.
    Succeeded,
    /// The first step that failed, in the frame's order; steps that could not run because of it are not its equals, even where they
    /// stand before it.
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

/// What can happen to a step of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StepEvent {
    /// It was carried out.
    Ended(Ended),
    /// It is given a lane.
    Released,
    /// It is redriven.
    Reopened,
}

impl StepEvent {
    fn verb(self) -> &'static str {
        match self {
            Self::Ended(Ended::Succeeded) => "succeed",
            Self::Ended(Ended::Skipped) => "be skipped",
            Self::Ended(Ended::Failed) => "fail",
            Self::Released => "be released",
            Self::Reopened => "be redriven",
        }
    }
}

/// An event that the state machine does not allow: a bug, or a stale caller that got past its guard.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Illegal {
    /// Not where the step stands.
    #[error("step {step} is {} and can't {}", .state.name(), .event.verb())]
    Event {
        /// The step's position.
        step: u16,
        /// Where it stands.
        state: StepState,
        /// What was to happen.
        event: StepEvent,
    },
    /// The frame has no step at this position.
    #[error("no step {step} in a frame of {steps}")]
    NoStep {
        /// The position.
        step: u16,
        /// How many there are.
        steps: usize,
    },
    /// The state belongs to another frame.
    #[error("a state of {stored} steps for a frame of {declared}")]
    Misfit {
        /// Steps in the state.
        stored: usize,
        /// Steps in the workflow.
        declared: usize,
    },
}

/// A frame's compact state: one byte a step, with the next free lane and the number of steps that have not ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameState {
    pub(super) next_lane: u32,
    pub(super) open: u16,
    pub(super) steps: Vec<StepState>,
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
        let (next_lane, open) = (u32::from_le_bytes(lane.try_into().ok()?), u16::from_le_bytes(open.try_into().ok()?));
        // A wrong count would end the frame too early or never.
        (usize::from(open) == steps.iter().filter(|s| !s.is_terminal()).count()).then_some(Self { next_lane, open, steps })
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
        let members = &dag.frame(frame).members;
        let (stored, declared) = (self.steps.len(), members.len());
        if stored != declared {
            return Err(Illegal::Misfit { stored, declared });
        }
        match self.steps.get(usize::from(local)) {
            Some(StepState::Live) => {}
            Some(state) => return Err(Illegal::Event { step: local, state: *state, event: StepEvent::Ended(ended) }),
            None => return Err(Illegal::NoStep { step: local, steps: stored }),
        }
        self.end_step(local, ended.into());
        Ok(self.settle(dag, frame, dag.step(members[usize::from(local)]).successors.clone()))
    }

    /// Decides those of the candidates that are pending and whose predecessors have all ended, and all that follows from it.
    pub(super) fn settle(&mut self, dag: &Dag, frame: FrameIx, candidates: Vec<u16>) -> Advance {
        let members = &dag.frame(frame).members;
        let mut advance = Advance::default();
        // A work list, not recursion: a skip may travel down ten thousand steps.
        let (mut work, mut at) = (candidates, 0);
        while let Some(next) = work.get(at).copied() {
            at += 1;
            if self.step(next) != StepState::Pending {
                continue;
            }
            match self.joined(dag, frame, next) {
                None => {}
                Some(StepState::Live) => {
                    self.steps[usize::from(next)] = StepState::Live;
                    advance.released.push(next);
                }
                Some(decided) => {
                    self.end_step(next, decided);
                    work.extend_from_slice(&dag.step(members[usize::from(next)]).successors);
                }
            }
        }
        if self.open == 0 {
            advance.end = Some(self.end(dag, frame));
        }
        advance
    }

    fn end_step(&mut self, local: u16, state: StepState) {
        self.steps[usize::from(local)] = state;
        self.open -= 1;
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
        let first = |these: &[StepState]| {
            (0u16..).zip(members).find(|(local, ix)| these.contains(&self.step(*local)) && !dag.step(**ix).allow_failure)
        };
        // `cancelled` is in no frame that goes on; if it ever were, the frame did not do what it was to do.
        match first(&[StepState::Failed]).or_else(|| first(&[StepState::UpstreamFailed, StepState::Cancelled])) {
            Some((step, _)) => FrameEnd::Failed { step },
            None => FrameEnd::Succeeded,
        }
    }
}
