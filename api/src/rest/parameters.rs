//! Parameters that mean the same in many operations.

use super::wrong;
use crate::problem::Said;
use chrono::{DateTime, Datelike, Utc};
use krowoc_engine::path::StepPath;

/// Items on a page where nobody says how many.
pub const PAGE: u16 = 20;

/// As [`PAGE`], for the document.
pub fn page() -> u16 {
    PAGE
}

/// A name of something, which is text that the database can hold.
pub fn name(parameter: &str, text: String) -> Result<String, Said> {
    if text.contains('\0') { Err(wrong(parameter, "it holds U+0000, which no name does")) } else { Ok(text) }
}

/// The same, where it may be absent.
pub fn name_if(parameter: &str, text: Option<String>) -> Result<Option<String>, Said> {
    text.map(|text| name(parameter, text)).transpose()
}

/// A time that the database can hold.
pub fn time(parameter: &str, time: Option<DateTime<Utc>>) -> Result<Option<DateTime<Utc>>, Said> {
    match time {
        Some(time) if !(0..=9999).contains(&time.year()) => Err(wrong(parameter, "it lies outside the years 0 to 9999")),
        time => Ok(time),
    }
}

/// A step's address.
pub fn path(parameter: &str, text: String) -> Result<StepPath, Said> {
    name(parameter, text)?.parse().map_err(|error| wrong(parameter, error))
}
