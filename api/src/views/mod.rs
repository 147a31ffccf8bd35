//! What the API shows: one struct for each thing, the same in REST (`snake_case`, a field that has no value is left out) and in GraphQL
//! (`camelCase`, `null`). Each is made from the engine's view of the thing and adds nothing; the doc lines are what readers of the OpenAPI
//! document and of the GraphQL schema see.

mod attempt;
mod dead_letter;
mod event;
mod failure;
mod json;
mod problem;
mod queue;
mod run;
mod step;
mod why;
mod workflow;

pub use attempt::{Attempt, AttemptStatus, Usage};
pub use dead_letter::{DeadLetter, DeadLetterDetail, DeadLetterOutcome, DeadLetterReport, DeadLetterState};
pub use event::Event;
pub use failure::{ErrorClass, Failure};
pub use json::Json;
pub use problem::LocatedProblem;
pub use queue::Queue;
pub use run::{CancelledRun, Run, RunDetail, RunError, RunResult, RunStatus, StartedRun};
pub use step::{MapItem, MapProgress, Step, StepInside, StepStatus, Tokens, WaitReason, Waiting};
pub use why::{Reason, Wait, Why};
pub use workflow::{PinnedPrompt, PromptMessage, RegisteredVersion, VersionSummary, Workflow, WorkflowVersion};

/// An enum of the engine as the API shows it, with every variant under its own name; a variant that is added there must be added here.
macro_rules! shown {
    ($(#[$doc:meta])* $name:ident from $engine:ty { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize, poem_openapi::Enum, async_graphql::Enum)]
        #[serde(rename_all = "snake_case")]
        #[oai(rename_all = "snake_case")]
        #[allow(missing_docs, reason = "many of the names say it")]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl From<$engine> for $name {
            fn from(engine: $engine) -> Self {
                match engine {
                    $(<$engine>::$variant => Self::$variant),+
                }
            }
        }

        impl From<$name> for $engine {
            fn from(shown: $name) -> Self {
                match shown {
                    $($name::$variant => Self::$variant),+
                }
            }
        }
    };
}
use shown;

#[cfg(test)]
mod tests;
