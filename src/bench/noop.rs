//! The step that costs nothing, so that what is measured is the engine: it gives its configuration back, or 200 bytes where it has none.

use krowoc_engine::{
    Payload, RunId,
    executor::{StepContext, StepError, StepKind, StepOutput},
};
use serde_json::{Value, json};
use std::time::SystemTime;
use tokio::sync::mpsc::UnboundedSender;

/// `noop:`, for measurements only: no other command of the binary knows it.
#[derive(Default)]
pub struct Noop {
    /// Hears of every start, where somebody wants to know.
    pub started: Option<UnboundedSender<(RunId, SystemTime)>>,
}

/// 200 bytes of JSON.
pub const OUTPUT: &str = concat!(
    r#"{"ok":true,"kind":"noop","text":""#,
    "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789",
    "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijk",
    r#""}"#
);

#[async_trait::async_trait]
impl StepKind for Noop {
    fn name(&self) -> &'static str {
        "noop"
    }

    fn schema(&self) -> Value {
        json!(true)
    }

    fn calls_out(&self) -> bool {
        false
    }

    fn is_instant(&self) -> bool {
        true
    }

    async fn execute(&self, context: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        if let Some(started) = &self.started {
            // Whoever listened has gone: the measurement is over.
            let _ = started.send((context.run, super::now()));
        }
        match config {
            Value::Null => Ok(StepOutput { output: Payload::from_json_text(OUTPUT), usage: None }),
            config => StepOutput::json(&config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_has_two_hundred_bytes_of_json() {
        assert_eq!(OUTPUT.len(), 200);
        serde_json::from_str::<Value>(OUTPUT).expect("JSON");
    }
}
