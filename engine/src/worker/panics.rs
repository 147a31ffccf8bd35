//! What becomes of a panic in a step: an error of the step, whatever was thrown.

use crate::{error::ErrorClass, executor::StepError};
use std::any::Any;

/// The error of an attempt that panicked.
pub(super) fn error(panic: Box<dyn Any + Send>) -> StepError {
    StepError::new(ErrorClass::Internal, format!("the step panicked: {}", said(panic))).within_bounds()
}

/// What was said with a panic.
pub(super) fn said(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => match panic.downcast::<&'static str>() {
            Ok(text) => (*text).to_owned(),
            Err(other) => {
                // It is of the step's own making, and to drop it is to run code of the step's once more: that may panic again, or never end.
                std::mem::forget(other);
                "no message".to_owned()
            }
        },
    }
}
