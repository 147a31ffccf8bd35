//! Splits a string of a workflow file into text and expressions.

/// A piece of a string.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'a> {
    /// Taken as it is.
    Text(&'a str),
    /// What stands between `${{` and `}}`, trimmed.
    Expression(&'a str),
}

/// Opens an expression.
const OPEN: &str = "${{";
/// A literal `${{`.
const ESCAPED: &str = "$${{";

/// Splits a string; the error says what is wrong with its syntax.
pub(super) fn split(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        if at > 0 && rest[..at].ends_with('$') {
            // `$${{`: everything before it, then `${{` as text.
            push_text(&mut pieces, &rest[..at - 1]);
            push_text(&mut pieces, &rest[at..at + OPEN.len()]);
            rest = &rest[at + OPEN.len()..];
            continue;
        }
        push_text(&mut pieces, &rest[..at]);
        let body = &rest[at + OPEN.len()..];
        let Some(end) = end_of_expression(body) else {
            return Err(format!("`{}` has no closing `}}}}`", super::shorten(&rest[at..])));
        };
        let source = body[..end].trim();
        if source.is_empty() {
            return Err("an expression is empty: `${{ }}`".into());
        }
        pieces.push(Piece::Expression(source));
        rest = &body[end + 2..];
    }
    push_text(&mut pieces, rest);
    Ok(pieces)
}

/// Does the string hold anything that [`split`] does not hand back as it is?
pub(super) fn is_plain(text: &str) -> bool {
    debug_assert!(ESCAPED.ends_with(OPEN));
    !text.contains(OPEN)
}

fn push_text<'a>(pieces: &mut Vec<Piece<'a>>, text: &'a str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
}

/// Where the `}}` stands that is neither inside a string literal nor closes a dict literal.
fn end_of_expression(body: &str) -> Option<usize> {
    let bytes = body.as_bytes();
    let mut open_braces = 0usize;
    let mut at = 0;
    // Quotes, backslashes and braces are ASCII, so bytes of longer characters are never taken for them.
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' => at = end_of_literal(bytes, at)?,
            b'{' => open_braces += 1,
            b'}' if open_braces > 0 => open_braces -= 1,
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The position of the quote that closes the literal opened at `start`.
fn end_of_literal(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            _ if byte == bytes[start] => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Piece::*, *};
    use proptest::prelude::*;

    #[test]
    fn strings_are_split_into_text_and_expressions() {
        for (text, pieces) in [
            ("", vec![]),
            ("plain", vec![Text("plain")]),
            ("${{ a }}", vec![Expression("a")]),
            ("${{a}}", vec![Expression("a")]),
            ("x ${{ a }} y ${{ b }}", vec![Text("x "), Expression("a"), Text(" y "), Expression("b")]),
            ("${{ '}}' }}", vec![Expression("'}}'")]),
            (r#"${{ "a\"}}" }}"#, vec![Expression(r#""a\"}}""#)]),
            ("${{ {'a': {'b': 1}} }}", vec![Expression("{'a': {'b': 1}}")]),
            ("${{ {'a': {'b': 1}}}}", vec![Expression("{'a': {'b': 1}}")]),
            ("${{ '{' }}}", vec![Expression("'{'"), Text("}")]),
            ("$${{ a }}", vec![Text("${{"), Text(" a }}")]),
            ("a$${{ ${{ b }}", vec![Text("a"), Text("${{"), Text(" "), Expression("b")]),
            ("{{ a }} $ {a} ${b}", vec![Text("{{ a }} $ {a} ${b}")]),
            ("ä ${{ 'ö}}' }} ü", vec![Text("ä "), Expression("'ö}}'"), Text(" ü")]),
        ] {
            assert_eq!(split(text), Ok(pieces), "{text}");
        }
    }

    #[test]
    fn what_is_not_closed_or_empty_is_an_error() {
        for text in ["${{ a", "${{ a }", "${{ 'a }}", "x ${{ {'a': 1 }}", "${{", "${{ }}", "${{}}"] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[${}'\"\\\\ aä]{0,24}") {
            let _ = split(&text);
        }

        #[test]
        fn escaped_text_comes_back_as_written(text in "[${} aä]{0,24}") {
            // Doubling the dollar before each opening is all that an author has to do.
            let escaped = text.replace("${{", "$${{");
            let pieces = split(&escaped).expect("nothing is left to open");
            let back: String = pieces.iter().map(|p| match p { Text(t) | Expression(t) => *t }).collect();
            prop_assert_eq!(back, text);
        }
    }
}
