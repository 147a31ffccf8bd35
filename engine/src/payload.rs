//! JSON text as it was produced. Inputs and outputs travel as text and are parsed only where something looks inside.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt,
    sync::{Arc, OnceLock},
};

/// Payloads up to this many bytes stay in their row.
pub(crate) const INLINE_LIMIT: usize = 256 * 1024;

/// Arrays and objects may lie in one another so deep; parsers of JSON give up at about as much.
const DEEPEST: usize = 128;

/// Why a JSON text from outside is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsound {
    /// Arrays and objects lie in one another too deep.
    #[error("arrays and objects lie in one another deeper than {DEEPEST} levels")]
    TooDeep,
    /// An escape that stands for half a character.
    #[error("a text holds half of a surrogate pair, which stands for no character")]
    LoneSurrogate,
}

/// A JSON document as text; cloning it is free.
#[derive(Clone)]
pub struct Payload {
    text: Arc<str>,
    /// For what is too large for a row.
    packed: Option<Arc<OnceLock<Packed>>>,
}

/// A payload as it is stored outside its row.
pub(crate) struct Packed {
    /// blake3 of the text.
    pub hash: [u8; 32],
    /// Of the text, in bytes.
    pub size: i32,
    /// The text in the LZ4 block format, with its length in front.
    pub data: Vec<u8>,
}

impl Packed {
    fn of(text: &str) -> Self {
        // A JSON text in PostgreSQL is below 1 GiB, so the size fits.
        Self {
            hash: *blake3::hash(text.as_bytes()).as_bytes(),
            size: text.len() as i32,
            data: lz4_flex::compress_prepend_size(text.as_bytes()),
        }
    }
}

impl Payload {
    /// `null`.
    pub fn null() -> Self {
        Self::new("null".into())
    }

    fn new(text: Arc<str>) -> Self {
        let packed = (text.len() > INLINE_LIMIT).then(Arc::default);
        Self { text, packed }
    }

    /// Takes text that is known to be JSON: from a `json` column or a serializer.
    pub fn from_json_text(text: impl Into<Arc<str>>) -> Self {
        Self::new(text.into())
    }

    /// Takes a JSON text from outside, which a parser has let pass as raw text: what every later reader would stumble over is refused here.
    pub fn from_outside(text: impl Into<Arc<str>>) -> Result<Self, Unsound> {
        let text = text.into();
        check(text.as_bytes())?;
        Ok(Self::new(text))
    }

    /// Serializes a value. Errors as serde_json does: a map key that is no string, a failing `Serialize`.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        Ok(Self::new(serde_json::to_string(value)?.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Parses the text.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.text)
    }

    /// The text's length in bytes.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// How it is stored if it is too large for a row. It is compressed when this is called first: where a payload is made, and not where
    /// everybody waits.
    pub(crate) fn packed(&self) -> Option<&Packed> {
        self.packed.as_ref().map(|packed| packed.get_or_init(|| Packed::of(&self.text)))
    }

    /// Is there no text? (Never so for JSON.)
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Payload {}

/// As the JSON it is, unchanged. Only for `serde_json`'s serializers.
impl Serialize for Payload {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &serde_json::value::RawValue = serde_json::from_str(&self.text).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.char_indices().nth(200) {
            Some((cut, _)) => write!(f, "{}… ({} bytes)", &self.text[..cut], self.text.len()),
            None => f.write_str(&self.text),
        }
    }
}

impl From<&serde_json::Value> for Payload {
    fn from(value: &serde_json::Value) -> Self {
        Self::new(value.to_string().into())
    }
}

/// Looks a JSON text through once. It is JSON as far as grammar goes, so that brackets and quotes match.
fn check(text: &[u8]) -> Result<(), Unsound> {
    let (mut depth, mut in_text, mut at) = (0usize, false, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => in_text = !in_text,
            b'\\' => at += escape(&text[at..])?,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return Err(Unsound::TooDeep);
        }
        at += 1;
    }
    Ok(())
}

/// How many bytes follow the backslash of an escape.
fn escape(text: &[u8]) -> Result<usize, Unsound> {
    match unit(text) {
        None => Ok(1),
        Some(0xD800..=0xDBFF) => match text.get(6..).and_then(unit) {
            Some(0xDC00..=0xDFFF) => Ok(11),
            _ => Err(Unsound::LoneSurrogate),
        },
        Some(0xDC00..=0xDFFF) => Err(Unsound::LoneSurrogate),
        Some(_) => Ok(5),
    }
}

/// The UTF-16 unit that `\uXXXX` stands for.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_later_readers_would_stumble_over_is_not_taken_from_outside() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        for (text, expected) in [
            (r#"{"a":"\u0000","n":1e400,"p":"\ud83d\ude00","q":"\\ud800","b":"[[{\""}"#.to_owned(), Ok(())),
            (nested(DEEPEST), Ok(())),
            (nested(DEEPEST + 1), Err(Unsound::TooDeep)),
            ("{\"a\":".repeat(DEEPEST + 1) + "1" + &"}".repeat(DEEPEST + 1), Err(Unsound::TooDeep)),
            (r#""\ud83d""#.to_owned(), Err(Unsound::LoneSurrogate)),
            (r#""\ud83d\ud83d""#.to_owned(), Err(Unsound::LoneSurrogate)),
            (r#""\ude00\ud83d""#.to_owned(), Err(Unsound::LoneSurrogate)),
            (r#"["\\\ud83dx"]"#.to_owned(), Err(Unsound::LoneSurrogate)),
        ] {
            assert_eq!(Payload::from_outside(text.as_str()).map(|payload| assert_eq!(payload.as_str(), text)), expected, "{text}");
        }
    }
}
