//! A run's output beside `output_schema`, as far as the file says what it will be: what is sure to miss the schema is a problem of the
//! file, not of every run.

use super::{
    Problem,
    expression::{Bindings, Reference, Segment, Template},
    pointer,
    schema::{JsonType, Lookup, Schema},
    sole::sole_lookup,
};
use serde_json::Value;
use std::collections::BTreeSet;

const AT: &str = "/output";

/// Of what types the value is that a reference leads to, where a schema says so.
type TypesOf<'a> = dyn Fn(&Reference) -> Option<BTreeSet<JsonType>> + 'a;

/// Everything that is sure to miss the schema. `output` is the value as written.
pub(super) fn check(output: Option<(&Value, &Template)>, schema: &Schema, types_of: &TypesOf<'_>) -> Vec<Problem> {
    let Some((value, template)) = output else {
        let missing =
            |_| Problem::new("missing_key", "/output_schema", "without `output` a run's output is null, which misses this schema");
        return schema.check(&Value::Null).first().map(missing).into_iter().map(|p| p.help("add `output`")).collect();
    };
    // Text may hold escaped openings of expressions.
    if let (true, Ok(value)) = (template.is_constant(), template.render(&Bindings::default())) {
        let problem =
            |v: super::Violation| Problem::new("type_mismatch", format!("{AT}{}", v.pointer), format!("the output: {}", v.message));
        return schema.check(&value).into_iter().map(problem).collect();
    }
    let mut walk = Walk { schema, types_of, problems: Vec::new() };
    walk.required(value);
    walk.value(value, AT, &mut Vec::new());
    walk.problems
}

struct Walk<'a> {
    schema: &'a Schema,
    types_of: &'a TypesOf<'a>,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn required(&mut self, value: &Value) {
        let (Value::Object(members), Some(Value::Array(names))) = (value, self.schema.json().get("required")) else { return };
        for name in names.iter().filter_map(Value::as_str).filter(|name| !members.contains_key(*name)) {
            let message = format!("the output lacks `{name}`, which `output_schema` requires");
            self.problems.push(Problem::new("missing_key", AT, message));
        }
    }

    /// Nested as deep as the document, which its parser bounds.
    fn value(&mut self, value: &Value, at: &str, path: &mut Vec<Segment>) {
        match self.schema.type_at(path) {
            Lookup::Missing { nearest, .. } => {
                let message = format!("`{}` is not in `output_schema`", pointer::last(at));
                let problem = Problem::new("unknown_field", at, message);
                return self.problems.push(match nearest {
                    Some(near) => problem.help(format!("did you mean `{near}`?")),
                    None => problem,
                });
            }
            Lookup::Known(allowed) => {
                if let Some(own) = self.types(value).filter(|own| !own.iter().any(|t| fits(*t, &allowed))) {
                    let message = format!("`output_schema` has {} here, this is {}", listed(&allowed), listed(&own));
                    return self.problems.push(Problem::new("type_mismatch", at, message));
                }
            }
            Lookup::Open => {}
        }
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    self.inner(member, at, name, Segment::Key(name.clone()), path);
                }
            }
            Value::Array(items) => {
                for (number, item) in (0..).zip(items) {
                    self.inner(item, at, &number.to_string(), Segment::Index(number), path);
                }
            }
            _ => {}
        }
    }

    fn inner(&mut self, value: &Value, at: &str, name: &str, segment: Segment, path: &mut Vec<Segment>) {
        path.push(segment);
        self.value(value, &pointer::join(at, name), path);
        path.pop();
    }

    /// The types that the value may have; nothing where that is not known.
    fn types(&self, value: &Value) -> Option<BTreeSet<JsonType>> {
        let one = match value {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Boolean,
            Value::Number(n) if n.is_f64() => JsonType::Number,
            Value::Number(_) => JsonType::Integer,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
            Value::String(text) if text.contains("${{") => return (self.types_of)(&sole_lookup(text)?),
            Value::String(_) => JsonType::String,
        };
        Some(BTreeSet::from([one]))
    }
}

/// A number may turn out whole.
fn fits(own: JsonType, allowed: &BTreeSet<JsonType>) -> bool {
    let numbers = [JsonType::Integer, JsonType::Number];
    allowed.contains(&own) || (numbers.contains(&own) && numbers.iter().any(|number| allowed.contains(number)))
}

fn listed(types: &BTreeSet<JsonType>) -> String {
    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}
