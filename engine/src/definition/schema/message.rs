//! What the validator found, in words for people who write files and prompts.

use super::Violation;
use crate::definition::{pointer::join, suggest::suggest};
use jsonschema::{
    JsonType, ValidationError,
    error::{TypeKind, ValidationErrorKind as Kind},
};
use serde_json::Value;

/// An error as violations: one for each key where several are too many. `schema` is what the value was checked against.
pub(super) fn violations(error: &ValidationError<'_>, schema: &Value) -> Vec<Violation> {
    let pointer = error.instance_path().as_str().to_owned();
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let known = known_keys(error, schema);
            unexpected.iter().map(|key| not_allowed(&pointer, key, suggest(key, known.iter().copied()))).collect()
        }
        Kind::PropertyNames { error: inner } => {
            let key = inner.instance().as_str().unwrap_or_default().to_owned();
            vec![Violation { pointer: join(&pointer, &key), message: format!("the key `{key}`: {}", text(inner)) }]
        }
        _ => vec![Violation { message: text(error), pointer }],
    }
}

fn not_allowed(pointer: &str, key: &str, near: Option<&str>) -> Violation {
    let advice = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Violation { pointer: join(pointer, key), message: format!("`{key}` is not allowed here{advice}") }
}

/// The keys that stand in the schema beside the keyword that refused one.
fn known_keys<'a>(error: &ValidationError<'_>, schema: &'a Value) -> Vec<&'a str> {
    let path = error.schema_path().as_str();
    let holder = path.rsplit_once('/').map_or("", |(holder, _)| holder);
    let properties = schema.pointer(holder).and_then(|holder| holder.get("properties")).and_then(Value::as_object);
    properties.into_iter().flat_map(|properties| properties.keys().map(String::as_str)).collect()
}

fn text(error: &ValidationError<'_>) -> String {
    let value = short(error.instance());
    match error.kind() {
        Kind::Required { property } => format!("`{}` is missing", property.as_str().unwrap_or_default()),
        Kind::Type { kind } => {
            let expected = match kind {
                TypeKind::Single(json_type) => named(*json_type).to_owned(),
                TypeKind::Multiple(types) => list(types.iter().map(|t| named(t).to_owned()).collect()),
            };
            format!("must be {expected}, not {}", of(error.instance()))
        }
        Kind::Enum { options } => {
            let options: Vec<String> = options.as_array().into_iter().flatten().map(short).collect();
            format!("must be one of {}, not {value}", options.join(", "))
        }
        Kind::Constant { expected_value } => format!("must be {}, not {value}", short(expected_value)),
        Kind::Format { format } => format!("{value} is no {format}"),
        Kind::Pattern { pattern } => format!("{value} does not match the pattern {pattern}"),
        Kind::MinLength { limit } => format!("{value} is shorter than {}", many(*limit, "character")),
        Kind::MaxLength { limit } => format!("{value} is longer than {}", many(*limit, "character")),
        Kind::Minimum { limit } => format!("{value} is less than the minimum of {limit}"),
        Kind::Maximum { limit } => format!("{value} is greater than the maximum of {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("{value} must be greater than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("{value} must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("{value} is no multiple of {multiple_of}"),
        Kind::MinItems { limit } => format!("has fewer than {}", many(*limit, "item")),
        Kind::MaxItems { limit } => format!("has more than {}", many(*limit, "item")),
        Kind::MinProperties { limit } => format!("has fewer than {}", many(*limit, "key")),
        Kind::MaxProperties { limit } => format!("has more than {}", many(*limit, "key")),
        Kind::UniqueItems => "has an item twice".into(),
        Kind::Contains => "no item is as `contains` asks for".into(),
        Kind::FalseSchema => "nothing is allowed here".into(),
        Kind::OneOfMultipleValid { .. } => "fits more than one of the alternatives, it must fit exactly one".into(),
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            let nearest = nearest(error, context).map(|near| format!("; the nearest: {near}")).unwrap_or_default();
            format!("fits none of the {} alternatives{nearest}", context.len())
        }
        _ => lower_first(&error.masked_with("the value").to_string()),
    }
}

/// The first error of the alternative that the value comes nearest to: whose errors are deepest, then fewest.
fn nearest(error: &ValidationError<'_>, context: &[Vec<ValidationError<'static>>]) -> Option<String> {
    let depth = |errors: &&Vec<ValidationError<'static>>| {
        let steps = errors.iter().map(|e| e.instance_path().as_str().matches('/').count()).max();
        // An alternative of another type is farther than one of the same type that lacks something.
        let type_fits = errors.iter().all(|e| e.instance_path() != error.instance_path() || !matches!(e.kind(), Kind::Type { .. }));
        (type_fits, steps, std::cmp::Reverse(errors.len()))
    };
    let first = context.iter().filter(|errors| !errors.is_empty()).max_by_key(depth)?.first()?;
    let below = first.instance_path().as_str().strip_prefix(error.instance_path().as_str()).unwrap_or_default();
    let inner = match first.kind() {
        Kind::AdditionalProperties { unexpected } => format!("`{}` is not allowed here", unexpected.join("`, `")),
        _ => text(first),
    };
    Some(if below.is_empty() { inner } else { format!("at {below}: {inner}") })
}

fn named(json_type: JsonType) -> &'static str {
    match json_type {
        JsonType::Array => "an array",
        JsonType::Boolean => "a boolean",
        JsonType::Integer => "an integer",
        JsonType::Null => "null",
        JsonType::Number => "a number",
        JsonType::Object => "an object",
        JsonType::String => "a string",
    }
}

fn of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn list(mut names: Vec<String>) -> String {
    match names.pop() {
        Some(last) if !names.is_empty() => format!("{} or {last}", names.join(", ")),
        last => last.unwrap_or_default(),
    }
}

fn many(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn short(value: &Value) -> String {
    const LONGEST: usize = 100;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
