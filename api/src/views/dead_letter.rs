//! Dead letters.

use super::{Attempt, ErrorClass, Failure, Json, shown};
use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use krowoc_engine::{
    Error,
    commands::{Discarded, Redrive, Redriven},
    queries::dead_letters::{LetterDetail, LetterState, LetterView},
};
use poem_openapi::Object;
use serde::Serialize;
use uuid::Uuid;

shown! {
    /// Where a dead letter stands.
    DeadLetterState from LetterState {
        /// Somebody has to decide.
        Open,
        /// Its step was opened again and has not ended well yet.
        Redriven,
        /// Its step has succeeded, or was skipped, since.
        Resolved,
        /// Somebody decided to leave it.
        Discarded,
    }
}

/// A step that failed for good.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct DeadLetter {
    /// Its id.
    pub id: Uuid,
    /// The run.
    pub run: Uuid,
    /// The workflow's name.
    pub workflow: String,
    /// The number of its version.
    pub version: i32,
    /// The step's address.
    pub path: String,
    /// Where the letter stands.
    pub state: DeadLetterState,
    /// Why the step failed last.
    pub class: ErrorClass,
    /// The same in words.
    pub message: String,
    /// Attempts until then.
    pub attempts: u32,
    /// The run's generation then.
    pub generation: i16,
    /// When the step failed for good first.
    pub created_at: DateTime<Utc>,
    /// When the letter changed last.
    pub changed_at: DateTime<Utc>,
    /// Why it was discarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<LetterView> for DeadLetter {
    fn from(view: LetterView) -> Self {
        Self {
            id: view.id,
            run: view.run.0,
            workflow: view.workflow,
            version: view.version,
            path: view.path,
            state: view.state.into(),
            class: view.class.into(),
            message: view.message,
            attempts: view.attempts,
            generation: view.generation,
            created_at: view.created_at,
            changed_at: view.changed_at,
            reason: view.reason,
        }
    }
}

/// A dead letter in full.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct DeadLetterDetail {
    #[serde(flatten)]
    #[oai(flatten)]
    #[graphql(flatten)]
    #[expect(missing_docs, reason = "its fields stand beside the others")]
    pub letter: DeadLetter,
    /// The failure.
    pub error: Failure,
    /// What the step was given, where it came so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    /// The attempt left no input on record, since its worker had vanished or its time was up: the input was rendered now, from what the
    /// step looked at then.
    pub input_rendered_later: bool,
    /// Every attempt, in order.
    pub history: Vec<Attempt>,
}

impl From<LetterDetail> for DeadLetterDetail {
    fn from(detail: LetterDetail) -> Self {
        Self {
            letter: detail.letter.into(),
            error: detail.error.into(),
            input: detail.input.map(Into::into),
            input_rendered_later: detail.input_rendered_later,
            history: detail.history.into_iter().map(Into::into).collect(),
        }
    }
}

/// What came of a dead letter that was to be redriven or discarded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, poem_openapi::Enum, async_graphql::Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum DeadLetterOutcome {
    /// Its step is ready, its counters at zero.
    Redriven,
    /// Its step is live or has ended well since: nothing was changed.
    AlreadyRedriven,
    /// It is discarded now, or was before.
    Discarded,
    /// Nothing was changed; the report says why.
    Refused,
}

/// What came of one dead letter.
#[derive(Clone, Debug, PartialEq, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct DeadLetterReport {
    /// The letter's id.
    pub letter: Uuid,
    /// What happened.
    pub outcome: DeadLetterOutcome,
    /// Its run, where it was redriven and there is such a letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Uuid>,
    /// The step's address there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Why it was refused: a code of the API's problems.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl DeadLetterReport {
    fn of(letter: Uuid, outcome: DeadLetterOutcome) -> Self {
        Self { letter, outcome, run: None, path: None, code: None, error: None }
    }

    fn refused(letter: Uuid, error: &Error) -> Self {
        let said = crate::problem::Said::of(error);
        Self { code: Some(said.code.name().into()), error: Some(said.detail), ..Self::of(letter, DeadLetterOutcome::Refused) }
    }
}

impl From<Redriven> for DeadLetterReport {
    fn from(redriven: Redriven) -> Self {
        let report = match redriven.outcome {
            Redrive::Redriven => Self::of(redriven.letter, DeadLetterOutcome::Redriven),
            Redrive::AlreadyRedriven => Self::of(redriven.letter, DeadLetterOutcome::AlreadyRedriven),
            Redrive::Refused(error) => Self::refused(redriven.letter, &error),
        };
        let (run, path) = redriven.step.unzip();
        Self { run: run.map(|run| run.0), path, ..report }
    }
}

impl From<Discarded> for DeadLetterReport {
    fn from(discarded: Discarded) -> Self {
        match discarded.outcome {
            Ok(()) => Self::of(discarded.letter, DeadLetterOutcome::Discarded),
            Err(error) => Self::refused(discarded.letter, &error),
        }
    }
}
