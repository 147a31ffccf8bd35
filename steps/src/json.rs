//! JSON from outside. serde_json refuses lone surrogates, which models do emit; here they become U+FFFD. Depth is capped at 128
//! by serde_json itself.

use serde_json::Value;
use std::borrow::Cow;

/// Parses what a server sent: bytes that are no UTF-8 and lone surrogates become U+FFFD.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let text = String::from_utf8_lossy(bytes);
    serde_json::from_str(&mend_surrogates(text.trim_start_matches('\u{feff}')))
}

/// Replaces each `\uD800`–`\uDFFF` escape that has no partner by `\uFFFD`.
pub(crate) fn mend_surrogates(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut mended: Option<Vec<u8>> = None;
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        // A backslash outside a string is no JSON anyway, so strings need not be tracked.
        match escape(bytes, at) {
            Some(0xD800..=0xDBFF) if matches!(escape(bytes, at + 6), Some(0xDC00..=0xDFFF)) => at += 12,
            Some(0xD800..=0xDFFF) => {
                mended.get_or_insert_with(|| bytes.to_vec())[at + 2..at + 6].copy_from_slice(b"FFFD");
                at += 6;
            }
            _ => at += 2,
        }
    }
    match mended {
        // Only ASCII was put in place of ASCII.
        Some(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        None => Cow::Borrowed(text),
    }
}

/// The code unit of a `\uXXXX` escape that starts at `at`.
fn escape(bytes: &[u8], at: usize) -> Option<u16> {
    let escape = bytes.get(at..at + 6)?;
    let digits = escape.strip_prefix(br"\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The bytes that a character takes up at the start of `text`, escaped or not, if it stands there.
pub(crate) fn length_of(wanted: char, text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut units = [0; 2];
    let units = wanted.encode_utf16(&mut units);
    if matches!(wanted, '"' | '\\' | '/') && bytes.starts_with(&[b'\\', wanted as u8]) {
        Some(2)
    } else if units.iter().enumerate().all(|(i, unit)| escape(bytes, i * 6) == Some(*unit)) {
        Some(units.len() * 6)
    } else {
        text.starts_with(wanted).then(|| wanted.len_utf8())
    }
}

/// The first characters of a text, for messages.
pub(crate) fn excerpt(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lone_surrogates_become_replacement_characters_and_pairs_stay() {
        for (text, value) in [
            (r#""\ud83d\ude00""#, "\u{1F600}"),
            (r#""a\ud83d""#, "a\u{FFFD}"),
            (r#""\ude00b""#, "\u{FFFD}b"),
            (r#""\ud83d\ud83d\ude00""#, "\u{FFFD}\u{1F600}"),
            (r#""\ud83d\n""#, "\u{FFFD}\n"),
            (r#""\\ud83d""#, r"\ud83d"),
            (r#""\\\ud83d""#, "\\\u{FFFD}"),
        ] {
            assert_eq!(parse(text.as_bytes()).expect(text), json!(value), "{text}");
        }
    }

    #[test]
    fn depth_is_capped_and_bytes_that_are_no_utf8_are_replaced() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(deep(100).as_bytes()).is_ok());
        assert!(parse(deep(128).as_bytes()).is_err());
        assert_eq!(parse(b"\"a\xff\"").expect("lossy"), json!("a\u{FFFD}"));
        assert_eq!(parse(b"\xef\xbb\xbf1").expect("BOM"), json!(1));
    }
}
