//! Texts that are one expression and nothing else.

use super::{
    expression::{Reference, Template},
    model::Loose,
    references::written,
};
use serde_json::Value;

/// Is the text one expression and nothing else?
pub(super) fn is_expression(text: &str) -> bool {
    let inner = text.trim().strip_prefix("${{").and_then(|t| t.strip_suffix("}}"));
    inner.is_some_and(|t| !t.contains("${{"))
}

/// The reference that a text is and nothing else.
pub(super) fn sole_lookup(text: &str) -> Option<Reference> {
    plain_lookup(&Template::compile(&text.into(), "").ok()?, inner_text(text)?)
}

/// What stands in a string that is one expression.
pub(super) fn plain_text(value: &Loose<Value>) -> Option<String> {
    let Loose::Good(Value::String(text)) = value else { return None };
    inner_text(text).map(str::to_owned)
}

fn inner_text(text: &str) -> Option<&str> {
    is_expression(text).then(|| text.trim()[3..].trim_end_matches('}').trim())
}

/// The reference that the template is and nothing else.
pub(super) fn plain_lookup(template: &Template, text: &str) -> Option<Reference> {
    match template.references() {
        [only] if written(only) == text => Some(only.clone()),
        _ => None,
    }
}
