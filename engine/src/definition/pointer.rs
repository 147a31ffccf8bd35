//! JSON pointers as text (RFC 6901).

use serde_json::Value;

/// Adds a segment.
pub(super) fn push(pointer: &mut String, segment: &str) {
    pointer.push('/');
    for c in segment.chars() {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
}

/// A pointer with a segment added.
pub fn join(pointer: &str, segment: &str) -> String {
    let mut joined = String::with_capacity(pointer.len() + segment.len() + 1);
    joined.push_str(pointer);
    push(&mut joined, segment);
    joined
}

/// The segments, unescaped.
pub(super) fn segments(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|s| s.replace("~1", "/").replace("~0", "~"))
}

/// The last segment, unescaped; empty for the whole.
pub(super) fn last(pointer: &str) -> String {
    segments(pointer).last().unwrap_or_default()
}

/// Does `pointer` lead to `outer` or into it?
pub(super) fn is_within(pointer: &str, outer: &str) -> bool {
    pointer.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Is a value there?
pub(super) fn exists(document: &Value, pointer: &str) -> bool {
    document.pointer(pointer).is_some()
}
