//! What a schema says about the place that a lookup such as `steps.split.output.sections[0].text` leads to. Cautious: where a schema
//! can be read in more than one way, it says nothing.

use super::reference::resolve;
use crate::definition::{expression::Segment, suggest::suggest};
use serde_json::{Map, Value};
use std::{cell::Cell, collections::BTreeSet, fmt};

/// A type of JSON Schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum JsonType {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl fmt::Display for JsonType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        })
    }
}

/// What a schema says about a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A value there has one of these types. It may still be absent, where the schema does not require it.
    Known(BTreeSet<JsonType>),
    /// The schema says nothing, or nothing certain.
    Open,
    /// The schema allows nothing there.
    Missing {
        /// The key that was probably meant.
        nearest: Option<String>,
        /// The keys there are; empty where the value is no object.
        known: Vec<String>,
    },
}

/// How many schemas are looked into for one lookup: alternatives that refer to what holds them double with each step of the path.
const MAX_SCHEMAS: usize = 4_096;

/// How far references and combinations are followed one into another.
const MAX_DEPTH: usize = 64;

pub(super) fn type_at(root: &Value, path: &[Segment]) -> Lookup {
    Search { root, left: Cell::new(MAX_SCHEMAS) }.at(root, path, path.len() + MAX_DEPTH)
}

struct Search<'a> {
    root: &'a Value,
    left: Cell<usize>,
}

impl Search<'_> {
    fn at(&self, schema: &Value, path: &[Segment], depth: usize) -> Lookup {
        let Some(left) = self.left.get().checked_sub(1) else { return Lookup::Open };
        self.left.set(left);
        let (schema, depth) = match (schema, depth.checked_sub(1)) {
            (Value::Object(schema), Some(depth)) => (schema, depth),
            (Value::Bool(false), _) => return Lookup::Missing { nearest: None, known: Vec::new() },
            _ => return Lookup::Open,
        };
        let mut lookup = self.own(schema, path, depth);
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|target| resolve(self.root, target)) {
            lookup = both(lookup, self.at(target, path, depth));
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            lookup = both(lookup, self.at(part, path, depth));
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(parts) = schema.get(keyword).and_then(Value::as_array) {
                lookup = both(lookup, either(parts.iter().map(|part| self.at(part, path, depth)).collect(), path));
            }
        }
        lookup
    }

    /// What the schema's own keywords say.
    fn own(&self, schema: &Map<String, Value>, path: &[Segment], depth: usize) -> Lookup {
        let types = types(schema);
        let nothing = Lookup::Missing { nearest: None, known: Vec::new() };
        let allows = |wanted: &[JsonType]| types.as_ref().is_none_or(|types| wanted.iter().any(|t| types.contains(t)));
        match path {
            [] => types.map_or(Lookup::Open, Lookup::Known),
            [Segment::Key(_), ..] if !allows(&[JsonType::Object]) => nothing,
            // A character of a string can be looked up too.
            [Segment::Index(_), ..] if !allows(&[JsonType::Array, JsonType::String]) => nothing,
            [Segment::Index(_), ..] if !allows(&[JsonType::Array]) => Lookup::Open,
            [Segment::Key(key), rest @ ..] => {
                let properties = schema.get("properties").and_then(Value::as_object);
                if let Some(inner) = properties.and_then(|p| p.get(key)) {
                    return self.at(inner, rest, depth);
                }
                if schema.contains_key("patternProperties") {
                    return Lookup::Open;
                }
                match schema.get("additionalProperties") {
                    Some(Value::Bool(false)) => missing(key, properties.into_iter().flat_map(Map::keys).cloned().collect()),
                    Some(inner) => self.at(inner, rest, depth),
                    None => Lookup::Open,
                }
            }
            [Segment::Index(index), rest @ ..] => {
                let prefix = schema.get("prefixItems").and_then(Value::as_array);
                match (prefix, usize::try_from(*index)) {
                    (Some(prefix), Ok(index)) if index < prefix.len() => self.at(&prefix[index], rest, depth),
                    // Counted from the end: which one it is depends on the length.
                    (Some(_), Err(_)) => Lookup::Open,
                    _ => schema.get("items").map_or(Lookup::Open, |items| self.at(items, rest, depth)),
                }
            }
        }
    }
}

fn missing(key: &str, known: Vec<String>) -> Lookup {
    Lookup::Missing { nearest: suggest(key, known.iter().map(String::as_str)).map(str::to_owned), known }
}

/// The types that `type`, `const` and `enum` leave.
fn types(schema: &Map<String, Value>) -> Option<BTreeSet<JsonType>> {
    let named = |value: &Value| {
        Some(match value.as_str()? {
            "null" => JsonType::Null,
            "boolean" => JsonType::Boolean,
            "integer" => JsonType::Integer,
            "number" => JsonType::Number,
            "string" => JsonType::String,
            "array" => JsonType::Array,
            "object" => JsonType::Object,
            _ => return None,
        })
    };
    let values = match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(std::slice::from_ref(value)),
        (None, Some(Value::Array(values))) => Some(values.as_slice()),
        _ => None,
    };
    let by_value = values.map(|values| values.iter().map(type_of).collect());
    let by_name = match schema.get("type") {
        Some(Value::Array(names)) => Some(names.iter().filter_map(named).collect()),
        Some(name) => named(name).map(|t| BTreeSet::from([t])),
        None => None,
    };
    match (by_name, by_value) {
        (Some(a), Some(b)) => Some(common(&a, &b)),
        (a, b) => a.or(b),
    }
}

fn type_of(value: &Value) -> JsonType {
    match value {
        Value::Null => JsonType::Null,
        Value::Bool(_) => JsonType::Boolean,
        Value::Number(n) if n.is_f64() => JsonType::Number,
        Value::Number(_) => JsonType::Integer,
        Value::String(_) => JsonType::String,
        Value::Array(_) => JsonType::Array,
        Value::Object(_) => JsonType::Object,
    }
}

/// An integer is a number too.
fn common(a: &BTreeSet<JsonType>, b: &BTreeSet<JsonType>) -> BTreeSet<JsonType> {
    let fits =
        |t: &JsonType, other: &BTreeSet<JsonType>| other.contains(t) || (*t == JsonType::Integer && other.contains(&JsonType::Number));
    a.iter().filter(|t| fits(t, b)).chain(b.iter().filter(|t| fits(t, a))).copied().collect()
}

/// Both hold.
fn both(a: Lookup, b: Lookup) -> Lookup {
    match (a, b) {
        (Lookup::Missing { nearest, known }, Lookup::Missing { nearest: other, known: more }) => {
            // The one that knows keys has more to say.
            if known.is_empty() { Lookup::Missing { nearest: other, known: more } } else { Lookup::Missing { nearest, known } }
        }
        (missing @ Lookup::Missing { .. }, _) | (_, missing @ Lookup::Missing { .. }) => missing,
        (Lookup::Known(a), Lookup::Known(b)) => {
            let common = common(&a, &b);
            // A contradiction: the schema fits nothing, which is not for this lookup to say.
            if common.is_empty() { Lookup::Open } else { Lookup::Known(common) }
        }
        (Lookup::Open, other) | (other, Lookup::Open) => other,
    }
}

/// One of them holds.
fn either(parts: Vec<Lookup>, path: &[Segment]) -> Lookup {
    let mut types = BTreeSet::new();
    let mut known: Vec<String> = Vec::new();
    for part in parts {
        match part {
            Lookup::Open => return Lookup::Open,
            Lookup::Known(more) => types.extend(more),
            Lookup::Missing { known: more, .. } => known.extend(more),
        }
    }
    if !types.is_empty() {
        return Lookup::Known(types);
    }
    known.sort_unstable();
    known.dedup();
    // Which of the keys was slipped on is not told by the parts; the nearest to any key of the path is.
    let keys = path.iter().filter_map(|segment| match segment {
        Segment::Key(key) => Some(key.as_str()),
        Segment::Index(_) => None,
    });
    let nearest = keys.filter_map(|key| suggest(key, known.iter().map(String::as_str))).next().map(str::to_owned);
    Lookup::Missing { nearest, known }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(text: &str) -> Vec<Segment> {
        let segment = |s: &str| s.parse().map_or_else(|_| Segment::Key(s.into()), Segment::Index);
        text.split('.').filter(|s| !s.is_empty()).map(segment).collect()
    }

    fn known(types: &[JsonType]) -> Lookup {
        Lookup::Known(types.iter().copied().collect())
    }

    #[test]
    fn places_are_known_open_or_missing() {
        use JsonType::*;
        let schema = json!({
            "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "v": {"type": "integer"}}, "additionalProperties": false}},
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "kind": {"enum": ["a", "b"]},
                "risk": {"type": "number"},
                "maybe": {"type": ["string", "null"]},
                "list": {"type": "array", "items": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}},
                "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}], "items": false},
                "open": {},
                "loose": {"type": "object", "properties": {"a": {"type": "string"}}},
                "map": {"type": "object", "additionalProperties": {"type": "integer"}},
                "patterns": {"type": "object", "patternProperties": {"^x": {"type": "string"}}, "additionalProperties": false},
                "tree": {"$ref": "#/$defs/node"},
                "any": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"xylo": {"type": "integer"}}, "additionalProperties": false}]},
                "all": {"allOf": [{"type": ["integer", "string"]}, {"type": ["number", "null"]}]},
                "one": {"oneOf": [{"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": false},
                                  {"type": "object", "properties": {"b": {"const": "x"}}, "additionalProperties": false}]},
                "half": {"anyOf": [{"type": "object"}, {"type": "object", "properties": {"b": {}}, "additionalProperties": false}]},
                "self": {"$ref": "#"},
                "never": false
            }
        });
        let missing = |nearest: Option<&str>, known: &[&str]| Lookup::Missing {
            nearest: nearest.map(str::to_owned),
            known: known.iter().map(|k| (*k).to_owned()).collect(),
        };
        for (at, expected) in [
            ("", known(&[Object])),
            ("kind", known(&[String])),
            ("kind.x", missing(None, &[])),
            ("kind.0", Lookup::Open),
            ("risk", known(&[Number])),
            ("risk.0", missing(None, &[])),
            ("maybe", known(&[String, Null])),
            ("list", known(&[Array])),
            ("list.0.id", known(&[String])),
            ("list.-1.id", known(&[String])),
            ("list.0.other", Lookup::Open),
            ("list.id", missing(None, &[])),
            ("pair.0", known(&[String])),
            ("pair.1", known(&[Boolean])),
            ("pair.2", missing(None, &[])),
            ("pair.-1", Lookup::Open),
            ("open", Lookup::Open),
            ("open.a.b.0", Lookup::Open),
            ("loose.a", known(&[String])),
            ("loose.b", Lookup::Open),
            ("map.anything", known(&[Integer])),
            ("patterns.a", Lookup::Open),
            ("tree.next.next.v", known(&[Integer])),
            ("tree.nxt", missing(Some("next"), &["next", "v"])),
            ("any", known(&[String, Object])),
            ("any.xylo", known(&[Integer])),
            ("any.xilo", missing(Some("xylo"), &["xylo"])),
            ("all", known(&[Integer])),
            ("one.a", known(&[Integer])),
            ("one.b", known(&[String])),
            ("one.ccc", missing(None, &["a", "b"])),
            ("half.z", Lookup::Open),
            ("self.self.risk", known(&[Number])),
            ("never", missing(None, &[])),
        ] {
            let found = type_at(&schema, &path(at));
            assert_eq!(found, expected, "{at}");
        }
        let Lookup::Missing { nearest, known } = type_at(&schema, &path("knd")) else { panic!("`knd` is not there") };
        assert_eq!((nearest.as_deref(), known.len()), (Some("kind"), 16));
    }

    #[test]
    fn endless_references_end() {
        let schema = json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]});
        assert_eq!(type_at(&schema, &path("a")), Lookup::Open);
        let doubling = json!({"properties": {"a": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}, "additionalProperties": false});
        assert_eq!(type_at(&doubling, &vec![Segment::Key("a".into()); 500]), Lookup::Open);
    }
}
