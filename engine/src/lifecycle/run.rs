//! The run's state machine as its header records it. `queued` is not stored: a run that no worker has touched yet is shown as such.

use serde::{Deserialize, Serialize};

/// Where a run stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "krowoc.run_status", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum RunStatus {
    Running,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
}

/// What can happen to a run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RunEvent {
    /// Its steps have ended, none that matters failed, and its output was computed.
    Succeed,
    /// Its steps have ended and one that matters failed, or its output could not be computed; or it was stopped for a failure of its own
    /// (its timeout) and the last attempt in flight has ended.
    Fail,
    /// Somebody asked for it to stop, or its time is up, while attempts are still in flight.
    Cancel,
    /// The last attempt in flight of a cancelling run has ended.
    LastAttemptEnded,
    /// A dead letter of it was redriven.
    Redrive,
}

/// An event that is not allowed where the run stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a run that is {} can't {}", .status.name(), .event.verb())]
pub struct IllegalRunEvent {
    /// Where the run stands.
    pub status: RunStatus,
    /// What was asked.
    pub event: RunEvent,
}

impl RunStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Running, Self::Cancelling, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Has the run ended?
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The name in database and API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Where the event leads.
    pub fn on(self, event: RunEvent) -> Result<Self, IllegalRunEvent> {
        use {RunEvent as E, RunStatus as S};
        match (self, event) {
            (S::Running, E::Succeed) => Ok(S::Succeeded),
            (S::Running | S::Cancelling, E::Fail) => Ok(S::Failed),
            (S::Running | S::Cancelling, E::Cancel) => Ok(S::Cancelling),
            (S::Cancelling, E::LastAttemptEnded) => Ok(S::Cancelled),
            (S::Running | S::Failed, E::Redrive) => Ok(S::Running),
            (
                S::Succeeded | S::Cancelled | S::Failed | S::Cancelling | S::Running,
                E::Succeed | E::Fail | E::Cancel | E::LastAttemptEnded | E::Redrive,
            ) => Err(IllegalRunEvent { status: self, event }),
        }
    }
}

impl RunEvent {
    /// Every event.
    pub const ALL: [Self; 5] = [Self::Succeed, Self::Fail, Self::Cancel, Self::LastAttemptEnded, Self::Redrive];

    fn verb(self) -> &'static str {
        match self {
            Self::Succeed => "succeed",
            Self::Fail => "fail",
            Self::Cancel => "be cancelled",
            Self::LastAttemptEnded => "end as cancelled",
            Self::Redrive => "be redriven",
        }
    }
}
