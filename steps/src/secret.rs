//! A value that must not be seen.

use std::fmt;

/// What takes a secret's place.
const MASK: &str = "***";
/// Shorter values are stand-ins (`x`, `ollama`): masking them would garble ordinary text and protect nothing.
const SHORTEST: usize = 8;

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

    /// `text` without this secret, for servers that echo what they were sent.
    pub fn mask(&self, text: &str) -> String {
        if self.0.len() < SHORTEST { text.into() } else { text.replace(&self.0, MASK) }
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
}
