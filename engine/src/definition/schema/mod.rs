//! JSON Schema 2020-12: checks values, and says what a schema knows about a place in them. Nothing is ever fetched: a schema is one
//! document.

mod lookup;
mod message;
mod reference;

pub use lookup::{JsonType, Lookup};

use super::expression::Segment;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use std::sync::Arc;

/// The most violations that one check reports: past that, another line helps nobody.
const MAX_VIOLATIONS: usize = 100;

/// How often a pattern with lookaround may go back before it counts as not matching; values come from outside.
const BACKTRACKS: usize = 100_000;

/// The largest compiled pattern, in bytes.
const PATTERN_SIZE: usize = 2 << 20;

/// A compiled schema.
pub struct Schema {
    json: Arc<Value>,
    validator: Validator,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Schema").field(&self.json).finish()
    }
}

/// Where and how a value misses its schema.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Violation {
    /// JSON pointer into the value.
    pub pointer: String,
    /// What is wrong there.
    pub message: String,
}

impl Schema {
    /// Compiles; a schema that is none is said with pointers into it. Formats are asserted, references stay in the document.
    pub fn compile(json: &Value) -> Result<Self, Vec<Violation>> {
        let meta = jsonschema::draft202012::meta::validator();
        let mut violations: Vec<Violation> =
            meta.iter_errors(json).flat_map(|e| message::violations(&e, &Value::Null)).take(MAX_VIOLATIONS).collect();
        // What is no schema need not be searched for references.
        if violations.is_empty() {
            violations = reference::check(json);
        }
        if !violations.is_empty() {
            return Err(violations);
        }
        let built = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS).size_limit(PATTERN_SIZE))
            .offline()
            .build(json);
        match built {
            Ok(validator) => Ok(Self { json: Arc::new(json.clone()), validator }),
            Err(error) => Err(message::violations(&error, &Value::Null)),
        }
    }

    /// The schema.
    pub fn json(&self) -> &Arc<Value> {
        &self.json
    }

    /// Every violation (at most 100), in the schema's order.
    pub fn check(&self, value: &Value) -> Vec<Violation> {
        self.validator.iter_errors(value).flat_map(|e| message::violations(&e, &self.json)).take(MAX_VIOLATIONS).collect()
    }

    /// What the schema says about the place that a lookup leads to.
    pub fn type_at(&self, path: &[Segment]) -> Lookup {
        lookup::type_at(&self.json, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, value: Value) -> Vec<(String, String)> {
        let schema = Schema::compile(&schema).unwrap_or_else(|v| panic!("{schema}: {v:?}"));
        schema.check(&value).into_iter().map(|v| (v.pointer, v.message)).collect()
    }

    #[test]
    fn violations_name_the_place_and_what_is_wrong() {
        let object = json!({"type": "object", "required": ["a", "b"], "additionalProperties": false,
            "properties": {"a": {"type": "string"}, "b": {"enum": ["x", "y", 1]}, "c/d": {"type": ["integer", "null"]}, "colour": {}}});
        for (schema, value, expected) in [
            (object.clone(), json!({"a": "s", "b": "x"}), vec![]),
            (object.clone(), json!({"a": 1, "b": "x"}), vec![("/a", "must be a string, not an integer")]),
            (object.clone(), json!({"a": "s"}), vec![("", "`b` is missing")]),
            (object.clone(), json!({"a": "s", "b": "z"}), vec![("/b", "must be one of \"x\", \"y\", 1, not \"z\"")]),
            (object.clone(), json!({"a": "s", "b": 1, "c/d": 1.5}), vec![("/c~1d", "must be null or an integer, not a number")]),
            (
                object.clone(),
                json!({"a": "s", "b": 1, "color": 1, "z~": 2}),
                vec![("/color", "`color` is not allowed here; did you mean `colour`?"), ("/z~0", "`z~` is not allowed here")],
            ),
            (
                json!({"items": {"minimum": 1}}),
                json!([1, 0, -1]),
                vec![("/1", "0 is less than the minimum of 1"), ("/2", "-1 is less than the minimum of 1")],
            ),
            (json!({"const": {"a": 1}}), json!(2), vec![("", "must be {\"a\":1}, not 2")]),
            (json!({"minLength": 2}), json!("a"), vec![("", "\"a\" is shorter than 2 characters")]),
            (json!({"pattern": "^a"}), json!("b"), vec![("", "\"b\" does not match the pattern ^a")]),
            (json!(false), json!(1), vec![("", "nothing is allowed here")]),
            (
                json!({"anyOf": [{"type": "string"}, {"type": "object", "required": ["k"]}]}),
                json!({}),
                vec![("", "fits none of the 2 alternatives; the nearest: `k` is missing")],
            ),
            (
                json!({"oneOf": [{"type": "number"}, {"type": "integer"}]}),
                json!(1),
                vec![("", "fits more than one of the alternatives, it must fit exactly one")],
            ),
            (
                json!({"propertyNames": {"maxLength": 1}}),
                json!({"ab": 1}),
                vec![("/ab", "the key `ab`: \"ab\" is longer than 1 character")],
            ),
        ] {
            let expected: Vec<(String, String)> = expected.into_iter().map(|(p, m)| (p.to_owned(), m.to_owned())).collect();
            assert_eq!(check(schema.clone(), value.clone()), expected, "{schema} {value}");
        }
    }

    #[test]
    fn formats_are_asserted() {
        for (format, good, bad) in [
            ("date-time", "2026-01-02T03:04:05Z", "2026-01-02"),
            ("date", "2026-01-02", "2026-13-02"),
            ("uri", "https://a.example/b?c", "not a uri"),
            ("email", "a@b.example", "a"),
            ("uuid", "01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d"),
        ] {
            let schema = json!({"type": "string", "format": format});
            assert_eq!(check(schema.clone(), json!(good)), []);
            let violations = check(schema, json!(bad));
            assert!(violations.len() == 1 && violations[0].1.contains(format), "{violations:?}");
        }
    }

    #[test]
    fn no_more_than_a_hundred_violations_are_reported_and_no_large_value_is_repeated() {
        let violations = check(json!({"items": {"type": "string"}}), json!(vec![0; 1_000]));
        assert_eq!(violations.len(), 100);
        let violations = check(json!({"maxLength": 3}), json!("x".repeat(10_000)));
        assert!(violations[0].1.len() < 300, "{violations:?}");
    }

    #[test]
    fn what_is_no_schema_is_said_with_its_place() {
        for (schema, pointer, reason) in [
            (json!({"type": "strin"}), "/type", "alternatives"),
            (json!({"properties": {"a": {"type": 3}}}), "/properties/a/type", ""),
            (json!({"required": "a"}), "/required", "must be an array"),
            (json!({"pattern": "("}), "/pattern", ""),
            (json!([]), "", ""),
            (json!({"$ref": "https://example.com/x.json"}), "/$ref", "stay in the document"),
            (json!({"properties": {"a": {"$ref": "other.json#/x"}}}), "/properties/a/$ref", "stay in the document"),
            (json!({"properties": {"a": {"$ref": "#/$defs/missing"}}}), "/properties/a/$ref", "leads nowhere"),
            (json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "/$schema", "2020-12"),
            (json!({"$ref": "#"}), "/$ref", "itself"),
            (
                json!({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}),
                "",
                "itself",
            ),
        ] {
            let violations = Schema::compile(&schema).expect_err(&schema.to_string());
            assert!(violations.iter().any(|v| v.pointer.starts_with(pointer) && v.message.contains(reason)), "{schema}: {violations:?}");
        }
    }

    #[test]
    fn references_inside_the_document_are_followed() {
        let tree = json!({"$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "v": {"type": "integer"}},
            "additionalProperties": false}, "named": {"$anchor": "n", "type": "string"}}, "type": "object",
            "properties": {"root": {"$ref": "#/$defs/node"}, "name": {"$ref": "#n"}}});
        assert_eq!(check(tree.clone(), json!({"root": {"next": {"next": {"v": 1}}}, "name": "a"})), []);
        let violations = check(tree, json!({"root": {"next": {"next": {"v": "1"}}}, "name": 1}));
        assert_eq!(violations.iter().map(|v| v.0.as_str()).collect::<Vec<_>>(), ["/root/next/next/v", "/name"]);
    }

    #[test]
    fn data_in_a_schema_is_not_taken_for_schemas() {
        let schema = json!({"properties": {"$ref": {"type": "string"}}, "const": {"$ref": "https://x"}, "default": {"$ref": "y"}});
        assert!(Schema::compile(&schema).is_ok());
    }
}
