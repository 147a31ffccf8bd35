//! From a workflow file to a compiled [`Dag`]: parse (once, to JSON and positions), validate (every problem at once), compile.
//! Pure: nothing here reads a clock, a database or the network; files are read by the caller or by [`PromptFolder`].

mod dag;
mod duration;
mod expression;
mod problem;
mod prompt;
mod schema;
mod source;
mod suggest;
mod workflow;

pub use dag::{Action, Backoff, BackoffKind, Dag, Frame, Jitter, Join, MapPlan, Reads, RetryPolicy, Step, Timeouts, Tolerance, WaitPlan};
pub use duration::parse_duration;
pub use expression::{Bindings, ExpressionError, Reference, RunFacts, Segment, Template};
pub use problem::{Problem, Span};
pub use prompt::{PromptFolder, PromptMessage, PromptSource, PromptVersion};
pub use schema::{Schema, Violation};
pub use source::Source;
pub use workflow::{Check, Compiled, compile, json_schema, restore};
