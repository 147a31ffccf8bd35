//! How much a step may leave behind. What it brings is held as text, compressed and read again by every step that looks at it, in as many
//! places at once as a worker has slots; so one answer must not take what all of them need.

use crate::{
    error::ErrorClass,
    executor::{StepError, Usage},
};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, Write};

/// The most JSON text of an output, of a run's input and of its output, in bytes: what an `http` step may read, and some twenty times the
/// context of the largest models. It is held up to three times while it is stored, so that thirty such steps at once fit into 3 GiB.
pub(crate) const MAX_PAYLOAD: usize = 32 << 20;
/// The most of an error's message, and of its details as JSON, in bytes: for people, and in every list of attempts.
const MAX_ERROR_PART: usize = 32 << 10;
/// The most that is kept of a provider's own words on what was used, in bytes of JSON.
const MAX_RAW_USAGE: usize = 16 << 10;

/// What to do about a payload that is too large.
pub(crate) fn too_large(what: &str, size: usize) -> String {
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    format!(
        "{what} has {:.1} MiB of JSON, at most {} MiB are kept; put large data elsewhere and pass its address, or take it in parts",
        mib(size),
        MAX_PAYLOAD >> 20
    )
}

/// A text of so many bytes is too large.
pub(crate) fn check(what: &str, size: usize) -> Result<(), StepError> {
    match size {
        size if size > MAX_PAYLOAD => Err(StepError::new(ErrorClass::TooLarge, too_large(what, size))),
        _ => Ok(()),
    }
}

/// The JSON text of a value, and its length. Past `most` bytes it is counted and no longer kept.
pub(crate) fn serialize<T: Serialize + ?Sized>(value: &T, most: usize) -> serde_json::Result<(Vec<u8>, usize)> {
    let mut text = Bounded { most, kept: Vec::new(), size: 0 };
    serde_json::to_writer(&mut text, value)?;
    Ok((text.kept, text.size))
}

struct Bounded {
    most: usize,
    kept: Vec<u8>,
    size: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.kept.extend_from_slice(&bytes[..bytes.len().min(self.most.saturating_sub(self.size))]);
        self.size += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl StepError {
    /// The same, cut where it says more than anybody reads.
    pub(crate) fn within_bounds(mut self) -> Self {
        if self.message.len() > MAX_ERROR_PART {
            let all = self.message.len();
            self.message.truncate(self.message.floor_char_boundary(MAX_ERROR_PART));
            self.message.shrink_to_fit();
            self.message += &format!("… (cut; {all} bytes in all)");
        }
        self.details = self.details.map(|details| cut(details, MAX_ERROR_PART));
        self.usage = self.usage.map(Usage::within_bounds);
        self
    }
}

impl Usage {
    /// The same, without what a provider says beyond measure.
    pub(crate) fn within_bounds(mut self) -> Self {
        self.raw = self.raw.map(|raw| cut(raw, MAX_RAW_USAGE));
        self
    }
}

/// The value, or the start of its text where that is too long.
fn cut(value: Value, most: usize) -> Value {
    match serialize(&value, most) {
        Ok((_, size)) if size <= most => value,
        Ok((start, size)) => json!({ "cut": String::from_utf8_lossy(&start), "bytes": size }),
        Err(e) => json!({ "cut": "", "why": e.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_past_the_bound_is_counted_and_not_kept() {
        let (text, size) = serialize(&"x".repeat(100), 10).expect("JSON");
        assert_eq!((text.as_slice(), size), (b"\"xxxxxxxxx".as_slice(), 102));
        assert_eq!(serialize(&json!({"a": 1}), 10).expect("JSON"), (br#"{"a":1}"#.to_vec(), 7));
    }

    #[test]
    fn errors_are_cut_between_characters_and_say_so() {
        let error = StepError::new(ErrorClass::Internal, "é".repeat(10 << 20)).details(json!({ "page": "é".repeat(1 << 20) }));
        let error = StepError { usage: Some(Usage { raw: Some(json!("é".repeat(1 << 20))), ..Usage::default() }), ..error }.within_bounds();
        assert!(error.message.starts_with("éé") && error.message.ends_with("é… (cut; 20971520 bytes in all)"));
        let details = error.details.as_ref().expect("details");
        assert!(details["cut"].as_str().is_some_and(|cut| cut.starts_with("{\"page\":\"éé")) && details["bytes"] == 2_097_163, "{details}");
        assert!(serde_json::to_string(&error).expect("JSON").len() < 100 << 10);
        assert!(error.usage.is_some_and(|usage| usage.raw.is_some_and(|raw| raw["bytes"] == 2_097_154)));
    }

    #[test]
    fn errors_of_usual_length_stay_as_they_are() {
        let error = StepError::new(ErrorClass::Network, "no route").details(json!({"status": 1}));
        let same = error.clone().within_bounds();
        assert_eq!((same.message, same.details), (error.message, error.details));
    }
}
