//! `$ref` in a schema: inside the document, to something, and not round in a circle.

use super::Violation;
use crate::definition::pointer;
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Keywords whose value is data, whatever it looks like.
const DATA: [&str; 4] = ["const", "enum", "default", "examples"];

/// Keywords that hold schemas by name; a name there is no keyword.
const MAPS: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Keywords whose schemas apply to the same value as the schema they stand in.
const SAME_VALUE: [&str; 8] = ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"];

/// Every reference that can't be followed, and every one that leads back to itself without going into the value: checking against it
/// would never end.
pub(super) fn check(root: &Value) -> Vec<Violation> {
    let mut violations = Vec::new();
    if let Some(draft) = root.get("$schema").and_then(Value::as_str).filter(|draft| !draft.contains("2020-12")) {
        violations.push(violation("/$schema".into(), format!("this is JSON Schema 2020-12, not {draft}")));
    }
    walk(root, String::new(), &mut |schema, pointer| {
        for keyword in ["$ref", "$dynamicRef"] {
            let Some(target) = schema.get(keyword).and_then(Value::as_str) else { continue };
            let at = format!("{pointer}/{keyword}");
            match resolve(root, target) {
                _ if !target.starts_with('#') => {
                    violations.push(violation(at, format!("`{target}`: references stay in the document (`#/$defs/…`)")));
                }
                None => violations.push(violation(at, format!("`{target}` leads nowhere in this schema"))),
                Some(found) if circles(root, found, schema) => {
                    violations.push(violation(at, format!("`{target}` leads back to itself without going into the value")));
                }
                Some(_) => {}
            }
        }
    });
    violations
}

fn violation(pointer: String, message: String) -> Violation {
    Violation { pointer, message }
}

/// What a reference inside the document means.
pub(super) fn resolve<'a>(root: &'a Value, target: &str) -> Option<&'a Value> {
    let fragment = percent_decoded(target.strip_prefix('#')?)?;
    if fragment.is_empty() || fragment.starts_with('/') {
        return root.pointer(&fragment);
    }
    let mut found = None;
    walk(root, String::new(), &mut |schema, _| {
        if ["$anchor", "$dynamicAnchor"].iter().any(|keyword| schema.get(*keyword).and_then(Value::as_str) == Some(&fragment)) {
            found = found.or(Some(schema));
        }
    });
    // `walk` hands out maps; the caller wants the value that holds one.
    let map = found?;
    find_holder(root, map)
}

fn find_holder<'a>(value: &'a Value, map: &Map<String, Value>) -> Option<&'a Value> {
    match value {
        Value::Object(inner) if std::ptr::eq(inner, map) => Some(value),
        Value::Object(inner) => inner.values().find_map(|v| find_holder(v, map)),
        Value::Array(items) => items.iter().find_map(|v| find_holder(v, map)),
        _ => None,
    }
}

/// A fragment is percent-encoded; nothing where it is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok())).flatten();
        decoded.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).ok()
}

/// Calls `visit` with every object that is a schema and its pointer.
fn walk<'a>(value: &'a Value, pointer: String, visit: &mut dyn FnMut(&'a Map<String, Value>, &str)) {
    match value {
        Value::Object(schema) => {
            visit(schema, &pointer);
            for (keyword, inner) in schema {
                let at = pointer::join(&pointer, keyword);
                match inner {
                    Value::Object(named) if MAPS.contains(&keyword.as_str()) => {
                        named.iter().for_each(|(name, schema)| walk(schema, pointer::join(&at, name), visit));
                    }
                    _ if DATA.contains(&keyword.as_str()) => {}
                    inner => walk(inner, at, visit),
                }
            }
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(n, item)| walk(item, format!("{pointer}/{n}"), visit)),
        _ => {}
    }
}

/// Does `from` lead to `goal` through schemas of the same value only?
fn circles(root: &Value, from: &Value, goal: &Map<String, Value>) -> bool {
    let mut seen: HashSet<*const Value> = HashSet::new();
    let mut open = vec![from];
    while let Some(value) = open.pop() {
        if !seen.insert(std::ptr::from_ref(value)) {
            continue;
        }
        let Value::Object(schema) = value else { continue };
        if std::ptr::eq(schema, goal) {
            return true;
        }
        open.extend(["$ref", "$dynamicRef"].iter().filter_map(|k| resolve(root, schema.get(*k)?.as_str()?)));
        for keyword in SAME_VALUE {
            match schema.get(keyword) {
                Some(Value::Array(items)) => open.extend(items),
                Some(Value::Object(named)) if keyword == "dependentSchemas" => open.extend(named.values()),
                Some(inner) => open.push(inner),
                None => {}
            }
        }
    }
    false
}
