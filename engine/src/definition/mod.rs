//! From a workflow file to a compiled [`Dag`]: parse (once, to JSON and positions), validate (every problem at once), compile.
//! Pure: nothing here reads a clock, a database or the network; files are read by the caller or by [`PromptFolder`].

mod assemble;
mod check;
mod dag;
mod defaults;
mod digest;
mod draft;
mod duration;
mod explain;
mod expression;
mod graph;
mod language_schema;
mod model;
mod output;
mod pointer;
mod problem;
mod prompt;
mod references;
mod schema;
mod sole;
mod source;
mod structure;
mod suggest;
mod workflow;

pub use check::Check;
pub use dag::{Action, Backoff, BackoffKind, Dag, Frame, Jitter, Join, MapPlan, Reads, RetryPolicy, Step, Timeouts, Tolerance, WaitPlan};
pub use duration::parse_duration;
pub use expression::{Bindings, Budget, ExpressionError, Reference, RunFacts, Segment, Template};
pub use language_schema::json_schema;
pub use pointer::join as join_pointer;
pub use problem::{Problem, Span};
pub use prompt::{PromptFolder, PromptMessage, PromptSource, PromptVersion};
pub use schema::{JsonType, Lookup, Schema, Violation};
pub use source::Source;
pub use suggest::advise;
pub use workflow::{Compiled, compile, restore};
