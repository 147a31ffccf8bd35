//! `transform`: the output is the rendered value. It reaches nothing outside, so the engine needs neither timeout nor retry for it.

use async_trait::async_trait;
use krowoc_engine::executor::{StepContext, StepError, StepKind, StepOutput};
use serde_json::{Value, json};

/// The kind.
pub struct Transform;

#[async_trait]
impl StepKind for Transform {
    fn name(&self) -> &'static str {
        "transform"
    }

    fn schema(&self) -> Value {
        json!({
            "description": "Any JSON value; expressions in it are rendered, and the rendered value is the step's output.",
            "examples": [{"total": "${{ steps.add.output.net + steps.add.output.tax }}"}],
        })
    }

    fn calls_out(&self) -> bool {
        false
    }

    fn is_instant(&self) -> bool {
        true
    }

    async fn execute(&self, _context: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        StepOutput::json(&config)
    }
}
