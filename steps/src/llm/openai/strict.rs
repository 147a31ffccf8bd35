//! `response_format`: the output schema as OpenAI takes it. Strict mode makes the model keep to the schema, but knows only a part
//! of JSON Schema (<https://platform.openai.com/docs/guides/structured-outputs>). A schema is adapted only in ways after which
//! whatever meets the adapted one can still be checked against the original: keywords that merely narrow a value are dropped,
//! objects are closed. A schema that would change its meaning is sent as it is, not strict.

use serde_json::{Map, Value, json};

/// Beyond these OpenAI refuses a strict schema.
const MAX_DEPTH: usize = 10;

/// The field's value, and whether the schema had to be wrapped in an object.
pub(super) struct Format {
    /// `response_format`
    pub(super) json: Value,
    /// The answer will be `{"value": …}`.
    pub(super) wrapped: bool,
}

/// The response format for a schema.
pub(super) fn format(schema: &Value) -> Format {
    let wrapped = !describes_object(schema);
    let schema = if wrapped { wrap(schema) } else { schema.clone() };
    // Alternatives at the top are refused, though not below it.
    let adapted = if schema.get("anyOf").is_some() { None } else { adapt(&schema, 0) };
    let (strict, schema) = match adapted {
        Some(adapted) => (true, adapted),
        None => (false, schema),
    };
    Format { json: json!({"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": strict}}), wrapped }
}

fn describes_object(schema: &Value) -> bool {
    schema.get("type").is_some_and(|t| t == "object") || (schema.get("type").is_none() && schema.get("properties").is_some())
}

/// The format takes only objects at the top; anything else becomes the one property of one.
fn wrap(schema: &Value) -> Value {
    let mut inner = schema.clone();
    move_references(&mut inner);
    json!({"type": "object", "properties": {"value": inner}, "required": ["value"], "additionalProperties": false})
}

/// References that start at the root have farther to go now.
fn move_references(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match value {
                    Value::String(target) if key == "$ref" && target.starts_with('#') => {
                        *target = format!("#/properties/value{}", &target[1..]);
                    }
                    other => move_references(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(move_references),
        _ => {}
    }
}

/// The schema for strict mode; nothing if it does not qualify.
fn adapt(schema: &Value, depth: usize) -> Option<Value> {
    let schema = schema.as_object().filter(|_| depth <= MAX_DEPTH)?;
    let mut adapted = Map::new();
    for (key, value) in schema {
        let value = match key.as_str() {
            "type" | "enum" | "const" | "description" | "title" | "$ref" | "required" | "minimum" | "maximum" | "exclusiveMinimum"
            | "exclusiveMaximum" | "multipleOf" | "minItems" | "maxItems" => value.clone(),
            "format" if FORMATS.contains(&value.as_str()?) => value.clone(),
            // Look-around is not supported; back-references neither.
            "pattern" if !value.as_str()?.contains("(?") => value.clone(),
            "additionalProperties" if *value == Value::Bool(false) => value.clone(),
            "properties" | "$defs" | "definitions" => {
                let each = value.as_object()?.iter().map(|(name, value)| Some((name.clone(), adapt(value, depth + 1)?)));
                Value::Object(each.collect::<Option<_>>()?)
            }
            "items" => adapt(value, depth + 1)?,
            "anyOf" => value.as_array()?.iter().map(|branch| adapt(branch, depth + 1)).collect::<Option<_>>()?,
            // They only narrow, or only annotate: the answer is checked against the original anyway.
            "format" | "pattern" | "minLength" | "maxLength" | "uniqueItems" | "default" | "examples" | "deprecated" | "readOnly"
            | "writeOnly" | "$schema" | "$id" | "$comment" => continue,
            _ => return None,
        };
        adapted.insert(key.clone(), value);
    }
    qualify(&mut adapted)?;
    Some(Value::Object(adapted))
}

const FORMATS: [&str; 9] = ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"];

/// Every schema says its type, objects are closed and ask for each of their properties. A reference stands alone; alternatives
/// have nothing beside them that would have to be closed or checked with each.
fn qualify(schema: &mut Map<String, Value>) -> Option<()> {
    const ANNOTATIONS: [&str; 2] = ["title", "description"];
    if schema.contains_key("$ref") {
        schema.retain(|key, _| !ANNOTATIONS.contains(&key.as_str()));
        return (schema.len() == 1).then_some(());
    }
    if schema.contains_key("anyOf") {
        let beside = |key: &str| ANNOTATIONS.contains(&key) || ["anyOf", "$defs", "definitions"].contains(&key);
        return schema.keys().all(|key| beside(key)).then_some(());
    }
    if !schema.contains_key("type") {
        let inferred = if schema.contains_key("properties") { "object" } else { type_of_values(schema)? };
        schema.insert("type".into(), inferred.into());
    }
    let is = |name: &str| match &schema["type"] {
        Value::String(one) => one == name,
        Value::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    };
    if is("array") && !schema.contains_key("items") {
        return None;
    }
    if is("object") {
        let required = schema.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let properties = schema.get("properties")?.as_object()?;
        if required.len() != properties.len() || !required.iter().all(|r| r.as_str().is_some_and(|r| properties.contains_key(r))) {
            return None;
        }
        schema.insert("additionalProperties".into(), false.into());
    }
    Some(())
}

/// The one type of an `enum`'s or `const`'s values.
fn type_of_values(schema: &Map<String, Value>) -> Option<&'static str> {
    let values = match (schema.get("enum"), schema.get("const")) {
        (Some(values), _) => values.as_array()?.as_slice(),
        (None, Some(value)) => std::slice::from_ref(value),
        (None, None) => return None,
    };
    let of = |value: &Value| match value {
        Value::String(_) => Some("string"),
        Value::Number(n) if n.is_f64() => Some("number"),
        Value::Number(_) => Some("integer"),
        Value::Bool(_) => Some("boolean"),
        _ => None,
    };
    let first = of(values.first()?)?;
    values.iter().all(|value| of(value) == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(schema: Value) -> Option<Value> {
        let format = format(&schema).json;
        let inner = &format["json_schema"];
        inner["strict"].as_bool().expect("a flag").then(|| inner["schema"].clone())
    }

    #[test]
    fn a_schema_that_qualifies_is_closed_typed_and_stripped_of_what_strict_mode_does_not_know() {
        let adapted = strict(json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "required": ["kind", "link", "rows"],
            "properties": {
                "kind": {"enum": ["a", "b"]},
                "link": {"type": ["string", "null"], "format": "uri", "minLength": 3},
                "rows": {"type": "array", "maxItems": 3, "items": {"$ref": "#/$defs/row"}},
            },
            "$defs": {"row": {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}},
        }));
        let expected = json!({
            "type": "object",
            "required": ["kind", "link", "rows"],
            "properties": {
                "kind": {"enum": ["a", "b"], "type": "string"},
                "link": {"type": ["string", "null"]},
                "rows": {"type": "array", "maxItems": 3, "items": {"$ref": "#/$defs/row"}},
            },
            "$defs": {"row": {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"], "additionalProperties": false}},
            "additionalProperties": false,
        });
        assert_eq!(adapted, Some(expected));
    }

    #[test]
    fn a_schema_whose_meaning_would_change_is_sent_as_it_is() {
        for schema in [
            json!({"type": "object", "properties": {"a": {"type": "string"}}}),
            json!({"type": "object"}),
            json!({"type": "object", "required": ["a"], "properties": {"a": {}}}),
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "array"}}}),
            json!({"type": "object", "required": ["a"], "properties": {"a": {"oneOf": [{"type": "string"}, {"type": "number"}]}}}),
            json!({"type": "object", "required": [], "properties": {}, "additionalProperties": {"type": "string"}}),
            json!({"type": "object", "required": ["a"], "properties": {"a": {"enum": [1, "x"]}}}),
            // Alternatives at the top, and beside what would have to be closed.
            json!({"type": "object", "anyOf": [{"type": "object", "properties": {}, "required": []}]}),
            json!({"properties": {"a": {"type": "string"}}, "required": ["a"], "anyOf": [{"type": "object", "properties": {}}]}),
            json!({"type": "object", "required": ["a"], "properties": {"a": {
                "type": "object", "properties": {"b": {"type": "string"}}, "anyOf": [{"$ref": "#"}],
            }}}),
            json!({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#", "properties": {"b": {"type": "string"}}}}}),
        ] {
            let format = format(&schema);
            assert_eq!(format.json["json_schema"], json!({"name": "output", "schema": schema, "strict": false}));
        }
    }

    #[test]
    fn alternatives_below_the_top_are_strict_when_each_of_them_qualifies() {
        let closed = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "number"}}, "additionalProperties": false});
        let schema = |branch: Value| json!({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/row", "description": "one"}, branch], "$defs": {"row": closed}});
        let row = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "number"}}});
        let adapted = strict(schema(row)).expect("strict");
        let expected = json!({"anyOf": [{"type": "null"}, {"$ref": "#/properties/value/$defs/row"}, closed], "$defs": {"row": closed}});
        assert_eq!(adapted["properties"]["value"], expected);
        assert_eq!(strict(schema(json!({"type": "object", "properties": {"n": {"type": "number"}}}))), None);
    }

    #[test]
    fn what_is_no_object_is_wrapped_and_its_references_still_hold() {
        let format = format(&json!({
            "type": "array", "items": {"$ref": "#/$defs/x"}, "$defs": {"x": {"type": "string"}},
        }));
        assert!(format.wrapped);
        let schema = &format.json["json_schema"]["schema"];
        assert_eq!(schema["properties"]["value"]["items"]["$ref"], "#/properties/value/$defs/x");
        assert!(schema.pointer("/properties/value/$defs/x").is_some());
        assert_eq!(schema["required"], json!(["value"]));
    }
}
