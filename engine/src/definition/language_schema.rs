//! The JSON Schema of the language: generated from the model, with the schema of each step kind plugged in. The same schema
//! serves editors and the compiler; only what the compiler says better itself is for editors alone.

use super::model::Workflow;
use crate::executor::StepKinds;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// A string that is only an expression.
pub(super) const EXPRESSION: &str = r"^\s*\$\{\{[\s\S]*\}\}\s*$";
/// A string that holds an expression.
const EMBEDDED: &str = r"\$\{\{[\s\S]*\}\}";
/// What a step's id and an item's name look like.
pub(super) const IDENTIFIER: &str = "^[a-z][a-z0-9_]{0,63}$";
/// What a duration looks like, nearly: that its parts go from long to short is left to the compiler.
const DURATION: &str = r"^\s*(?:(?:[0-9]+(?:ms|s|m|h|d))+|[0-9]+(?:\.[0-9]*)?)\s*$";
/// Where the schema of a step stands.
pub(super) const STEP: &str = "/$defs/Step";

/// The JSON Schema of the language with the kinds given: for editors, and for [`compile`](super::compile).
pub fn json_schema(kinds: &StepKinds) -> Value {
    let mut schema = checked_schema(kinds);
    let forms: Vec<_> = kinds.iter().map(|k| k.name()).chain(["map", "wait"]).map(|name| json!({"required": [name]})).collect();
    schema["$defs"]["Step"]["oneOf"] = forms.into();
    schema["$defs"]["Duration"]["pattern"] = DURATION.into();
    for steps in ["/properties/steps", "/$defs/MapStep/properties/steps"] {
        if let Some(Value::Object(steps)) = schema.pointer_mut(steps) {
            steps.insert("propertyNames".into(), json!({"pattern": IDENTIFIER}));
        }
    }
    schema
}

/// The schema without what the compiler says better itself: the ids of steps, that each has one kind, what is wrong with a
/// duration.
pub(super) fn checked_schema(kinds: &StepKinds) -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Workflow>().to_value();
    let defs = &mut schema["$defs"];
    defs["Expression"] = json!({"type": "string", "pattern": EXPRESSION, "title": "an expression `${{ … }}`"});
    defs["TextWithExpression"] = json!({"type": "string", "pattern": EMBEDDED, "title": "text with an expression `${{ … }}`"});
    for kind in kinds.iter() {
        let name = kind.name();
        let own = format!("kind_{name}");
        let mut config = kind.schema();
        if let Value::Object(config) = &mut config {
            config.remove("$schema");
            config.remove("$id");
        }
        move_references(&mut config, &own);
        allow_expressions(&mut config);
        if let Some(partial) = partial(&config) {
            let shared = format!("defaults_{name}");
            defs["Defaults"]["properties"][name] = json!({"$ref": format!("#/$defs/{shared}")});
            defs[shared] = partial;
        }
        defs["Step"]["properties"][name] = json!({"$ref": format!("#/$defs/{own}")});
        defs[own] = config;
    }
    schema
}

/// The keys that `defaults` may give for a kind: all of its keys, none of them required. Nothing for kinds without keys.
fn partial(config: &Value) -> Option<Value> {
    let properties = config.get("properties")?;
    Some(
        json!({"type": "object", "properties": properties, "additionalProperties": config.get("additionalProperties").unwrap_or(&json!(true))}),
    )
}

/// References into a kind's schema, after it has moved below the language's `$defs`.
fn move_references(schema: &mut Value, own: &str) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match value {
                    Value::String(target) if key == "$ref" => {
                        if let Some(inner) = target.strip_prefix('#') {
                            *target = format!("#/$defs/{own}{inner}");
                        }
                    }
                    value => move_references(value, own),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| move_references(item, own)),
        _ => {}
    }
}

/// Lets an expression stand wherever a value may, below a schema's top.
fn allow_expressions(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for (key, inner) in map.iter_mut() {
        match (key.as_str(), inner) {
            ("properties" | "patternProperties", Value::Object(members)) => members.values_mut().for_each(wrap),
            ("items" | "additionalProperties" | "unevaluatedProperties" | "unevaluatedItems", inner) => wrap(inner),
            ("prefixItems", Value::Array(items)) => items.iter_mut().for_each(wrap),
            ("$defs" | "dependentSchemas", Value::Object(members)) => members.values_mut().for_each(allow_expressions),
            ("anyOf" | "oneOf" | "allOf", Value::Array(branches)) => branches.iter_mut().for_each(allow_expressions),
            ("if" | "then" | "else", inner) => allow_expressions(inner),
            _ => {}
        }
    }
}

fn wrap(schema: &mut Value) {
    allow_expressions(schema);
    let Value::Object(map) = schema else { return };
    let Some(expression) = missing_expression(map) else { return };
    let mut outer = Map::new();
    for key in ["title", "description", "default", "deprecated", "examples"] {
        if let Some(value) = map.shift_remove(key) {
            outer.insert(key.into(), value);
        }
    }
    outer.insert("anyOf".into(), json!([Value::Object(std::mem::take(map)), {"$ref": expression}]));
    *map = outer;
}

/// What must be added so that expressions are accepted; nothing if the schema takes any text as it is.
fn missing_expression(schema: &Map<String, Value>) -> Option<&'static str> {
    const NARROWS: [&str; 14] = [
        "enum",
        "const",
        "pattern",
        "minLength",
        "maxLength",
        "anyOf",
        "oneOf",
        "allOf",
        "not",
        "if",
        "$ref",
        "$dynamicRef",
        "format",
        "type",
    ];
    if !NARROWS.iter().any(|key| schema.contains_key(*key)) {
        return None;
    }
    let text = match schema.get("type") {
        Some(Value::String(name)) => name == "string",
        Some(Value::Array(names)) => names.iter().any(|n| n == "string"),
        _ => false,
    };
    if !text {
        return Some("#/$defs/Expression");
    }
    let narrow = NARROWS.iter().any(|key| *key != "type" && schema.contains_key(*key));
    narrow.then_some("#/$defs/TextWithExpression")
}
