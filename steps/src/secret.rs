//! A value that must not be seen.

use crate::json;
use std::fmt;

/// What takes a secret's place.
pub(crate) const MASK: &str = "***";
/// Shorter values are stand-ins (`x`, `ollama`): masking them would garble ordinary text and protect nothing.
pub(crate) const SHORTEST: usize = 8;

/// A credential. `Debug` and `Display` never show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `text` without this secret, for servers that echo what they were sent: as it is, or escaped as in JSON (`\u002d`, `\/`).
    pub fn mask(&self, text: &str) -> String {
        if self.0.len() < SHORTEST {
            return text.into();
        }
        let text = text.replace(&self.0, MASK);
        let may_hide = text.contains(r"\u") || (text.contains('\\') && self.0.contains(['"', '\\', '/']));
        if may_hide { self.mask_escaped(&text) } else { text }
    }

    fn mask_escaped(&self, text: &str) -> String {
        let mut masked = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let length = self.length_in(rest);
            match length {
                Some(_) => masked.push_str(MASK),
                None => masked.push(next),
            }
            rest = &rest[length.unwrap_or(next.len_utf8())..];
        }
        masked
    }

    /// The bytes that the secret takes up at the start of `text`, if it stands there.
    fn length_in(&self, text: &str) -> Option<usize> {
        self.0.chars().try_fold(0, |at, wanted| Some(at + json::length_of(wanted, &text[at..])?))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown_and_is_masked_in_text() {
        let secret = Secret::new("sk-0123456789");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.mask("bad key sk-0123456789!"), "bad key ***!");
        assert_eq!(Secret::new("x").mask("example"), "example");
    }

    #[test]
    fn a_secret_is_masked_however_json_escapes_it() {
        let secret = Secret::new("sk-0/\"12\\é\u{1F600}");
        for text in [r#"sk-0/"12\é😀"#, r#"sk-0\/\"12\\é😀"#, r#"sk\u002D0\u002f\"12\\\u00e9\ud83d\ude00"#] {
            assert_eq!(secret.mask(&format!(r#"{{"é\n": "{text}"}}"#)), r#"{"é\n": "***"}"#, "{text}");
        }
        for text in [r#"sk\u002d0"#, r#"sk-0\/\"12\\é\ud83d"#, r"\", r"\u", "é"] {
            assert_eq!(secret.mask(text), text);
        }
    }
}
