//! A value that meets a JSON Schema. Each try is built from the schema's keywords and then checked by the real validator; a schema
//! that no try meets is an error, never a wrong answer.

use super::{
    dice::Dice,
    facts::{Facts, first_number, words_of},
    strings::{self, Place},
};
use krowoc_engine::definition::Schema;
use serde_json::{Map, Number, Value};

const TRIES: u64 = 24;
/// Deeper than this only what is required is made, so that recursive schemas end.
const DEEP: usize = 6;
const DEEPEST: usize = 40;
/// An array without bounds gets two or three items.
const ITEMS: usize = 2;
const MOST_ITEMS: usize = 1_000;

/// A value for the schema, with facts of the prompt where they fit.
pub(super) fn value(schema: &Value, facts: &Facts<'_>, seed: u64) -> Result<Value, String> {
    let compiled = Schema::compile(schema)
        .map_err(|v| format!("the output schema is none: {}", v.first().map(|v| v.message.clone()).unwrap_or_default()))?;
    let mut why = "it allows no value".to_owned();
    for attempt in 0..TRIES {
        let mut maker = Maker { root: schema, facts, dice: Dice::of(seed, &attempt.to_le_bytes()), depth: 0 };
        if let Some(value) = maker.make(schema, &At { name: "", nth: 0, listed: false }) {
            match compiled.check(&value).first() {
                None => return Ok(value),
                Some(violation) => why = format!("at `{}`: {}", violation.pointer, violation.message),
            }
        }
    }
    Err(format!("no value was found that meets the output schema ({why}); simplify the schema or use another model"))
}

struct Maker<'a> {
    root: &'a Value,
    facts: &'a Facts<'a>,
    dice: Dice,
    depth: usize,
}

/// Where a value goes.
struct At<'a> {
    name: &'a str,
    nth: usize,
    /// In a list: `nth` is a row.
    listed: bool,
}

impl Maker<'_> {
    fn make(&mut self, schema: &Value, at: &At<'_>) -> Option<Value> {
        if self.depth > DEEPEST {
            return None;
        }
        self.depth += 1;
        let made = match schema {
            Value::Bool(false) => None,
            Value::Object(schema) => {
                let schema = self.resolved(schema, 0)?;
                self.make_resolved(&schema, at)
            }
            _ => self.text(&Map::new(), at),
        };
        self.depth -= 1;
        made
    }

    fn make_resolved(&mut self, schema: &Map<String, Value>, at: &At<'_>) -> Option<Value> {
        if let Some(value) = schema.get("const") {
            return Some(value.clone());
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return self.choose(values, at);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(branches) = schema.get(key).and_then(Value::as_array) {
                return self.branch(schema, key, branches, at);
            }
        }
        match self.type_of(schema).as_str() {
            "object" => self.object(schema, at),
            "array" => self.array(schema, at),
            "integer" => self.number(schema, at, true),
            "number" => self.number(schema, at, false),
            "boolean" => Some(self.flag(at).into()),
            "null" => Some(Value::Null),
            _ => self.text(schema, at),
        }
    }

    /// The schema with its reference followed, `allOf` and one side of `if` merged in.
    fn resolved(&mut self, schema: &Map<String, Value>, hops: usize) -> Option<Map<String, Value>> {
        let mut merged = schema.clone();
        let mut parts: Vec<Value> = Vec::new();
        if let Some(reference) = merged.remove("$ref").or_else(|| merged.remove("$dynamicRef")) {
            let pointer = reference.as_str()?.strip_prefix('#')?.replace("%25", "%");
            parts.push(self.root.pointer(&pointer)?.clone());
        }
        if let Some(Value::Array(all)) = merged.remove("allOf") {
            parts.extend(all);
        }
        if let Some(condition) = merged.remove("if") {
            let (then, other) = (merged.remove("then"), merged.remove("else"));
            if self.dice.below(2) == 0 {
                parts.push(condition);
                parts.extend(then);
            } else {
                parts.extend(other);
            }
        }
        for part in parts {
            match part {
                Value::Object(part) if hops < DEEPEST => merge(&mut merged, self.resolved(&part, hops + 1)?),
                Value::Bool(true) => {}
                _ => return None,
            }
        }
        Some(merged)
    }

    /// One branch, together with what stands beside the branches. Null is the last resort: an answer is better than none.
    fn branch(&mut self, schema: &Map<String, Value>, key: &str, branches: &[Value], at: &At<'_>) -> Option<Value> {
        let mut base = schema.clone();
        base.remove(key);
        let first = self.dice.below(branches.len());
        let mut order: Vec<&Value> = branches.iter().cycle().skip(first).take(branches.len()).collect();
        order.sort_by_key(|branch| branch.get("type").is_some_and(|t| t == "null"));
        if self.depth > DEEP {
            order.sort_by_key(|branch| branch.to_string().contains("$ref"));
        }
        order.into_iter().find_map(|branch| {
            let mut whole = base.clone();
            match branch {
                Value::Object(branch) => merge(&mut whole, branch.clone()),
                Value::Bool(true) => {}
                _ => return None,
            }
            self.make(&Value::Object(whole), at)
        })
    }

    /// The value that the text speaks of most, else any.
    fn choose(&mut self, values: &[Value], at: &At<'_>) -> Option<Value> {
        let text = self.facts.text.to_lowercase();
        let labelled = self.facts.labelled(&words_of(at.name)).map(str::to_lowercase);
        let mentions = |value: &Value| {
            let word = value.as_str().map(|v| v.to_lowercase().replace('_', " ")).filter(|v| v.len() > 1)?;
            if labelled.as_ref().is_some_and(|label| label.starts_with(&word)) {
                return Some(usize::MAX);
            }
            Some(text.matches(&word).count() + if value.as_str()?.contains('_') { text.matches(value.as_str()?).count() } else { 0 })
        };
        let counts: Vec<usize> = values.iter().map(|value| mentions(value).unwrap_or(0)).collect();
        let most = counts.iter().copied().max()?;
        let best: Vec<&Value> = values.iter().zip(&counts).filter(|(_, count)| **count == most).map(|(value, _)| value).collect();
        // Items of a list differ where they can.
        let nth = if at.nth > 0 { at.nth % values.len() } else { self.dice.below(best.len()) };
        if at.nth > 0 { values.get(nth).cloned() } else { best.get(nth).map(|value| (*value).clone()) }
    }

    fn type_of(&mut self, schema: &Map<String, Value>) -> String {
        let has = |keys: &[&str]| keys.iter().any(|key| schema.contains_key(*key));
        match schema.get("type") {
            Some(Value::String(one)) => one.clone(),
            Some(Value::Array(several)) => {
                let names: Vec<&str> = several.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect();
                names.get(self.dice.below(names.len())).map_or("null", |name| *name).into()
            }
            _ if has(&["properties", "required", "additionalProperties", "minProperties", "patternProperties"]) => "object".into(),
            _ if has(&["items", "prefixItems", "minItems", "contains", "uniqueItems"]) => "array".into(),
            _ if has(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]) => "number".into(),
            _ => "string".into(),
        }
    }

    fn object(&mut self, schema: &Map<String, Value>, at: &At<'_>) -> Option<Value> {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64).map(|n| n as usize);
        let (least, most) = (bound("minProperties").unwrap_or(0), bound("maxProperties").unwrap_or(usize::MAX));
        let mut object = Map::new();
        for (name, property) in properties {
            let must = required.contains(&name.as_str());
            if !must && (self.depth > DEEP || most < properties.len().max(required.len())) {
                continue;
            }
            match self.make(property, &At { name, nth: at.nth, listed: at.listed }) {
                Some(value) => drop(object.insert(name.clone(), value)),
                None if must => return None,
                None => {}
            }
        }
        let other = Value::Bool(true);
        let other = schema.get("additionalProperties").filter(|a| **a != Value::Bool(false)).unwrap_or(&other);
        for name in required {
            if !object.contains_key(name) {
                let value = self.make(other, &At { name, nth: at.nth, listed: at.listed })?;
                object.insert(name.into(), value);
            }
        }
        self.fill(schema, &mut object, other, least)?;
        Some(Value::Object(object))
    }

    /// Makes up names until an object has enough properties, by its `patternProperties` or `propertyNames` where it has any.
    fn fill(&mut self, schema: &Map<String, Value>, object: &mut Map<String, Value>, other: &Value, least: usize) -> Option<()> {
        let patterned = schema.get("patternProperties").and_then(Value::as_object).and_then(|p| p.iter().next());
        for attempt in 0..least * 4 {
            if object.len() >= least {
                break;
            }
            let name = match (patterned, schema.get("propertyNames")) {
                (Some((pattern, _)), _) => super::pattern::matching(pattern, &mut self.dice)?,
                (None, Some(names)) => self.make(names, &At { name: "key", nth: attempt, listed: false })?.as_str()?.to_owned(),
                (None, None) => format!("key{}", attempt + 1),
            };
            let value = self.make(patterned.map_or(other, |(_, schema)| schema), &At { name: &name, nth: attempt, listed: false })?;
            object.insert(name, value);
        }
        Some(())
    }

    fn array(&mut self, schema: &Map<String, Value>, at: &At<'_>) -> Option<Value> {
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64).map(|n| n as usize);
        let prefix = schema.get("prefixItems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let least = bound("minItems").unwrap_or(0).max(if schema.contains_key("contains") { bound("minContains").unwrap_or(1) } else { 0 });
        let usual = if self.depth > DEEP { 0 } else { (ITEMS + self.dice.below(2)).max(prefix.len()) };
        let usual = self.table_rows(schema).unwrap_or(usual);
        let wanted = usual.max(least).min(bound("maxItems").unwrap_or(usize::MAX));
        if wanted > MOST_ITEMS {
            return None;
        }
        let unique = schema.get("uniqueItems").is_some_and(|u| *u == true);
        let (free, closed) = (Value::Bool(true), Value::Bool(false));
        let rest = schema.get("items").or_else(|| schema.get("contains")).unwrap_or(&free);
        let mut items: Vec<Value> = Vec::new();
        // An item that repeats is made anew, with another number and other dice.
        for attempt in 0..wanted * 8 {
            if items.len() == wanted {
                break;
            }
            let place = items.len();
            let item = match schema.get("contains").filter(|_| place >= prefix.len() && place < least) {
                Some(contained) => Value::Object(Map::from_iter([("allOf".into(), Value::from(vec![rest.clone(), contained.clone()]))])),
                None => prefix.get(place).unwrap_or(rest).clone(),
            };
            if item == closed {
                break;
            }
            match self.make(&item, &At { name: at.name, nth: attempt, listed: true }) {
                Some(item) if unique && items.contains(&item) => {}
                Some(item) => items.push(item),
                None if place < least => return None,
                None => break,
            }
        }
        Some(Value::Array(items))
    }

    /// As many items as a table in the text has rows, if it has the columns that the items' required fields mean.
    fn table_rows(&self, schema: &Map<String, Value>) -> Option<usize> {
        let required = schema.get("items")?.get("required")?.as_array()?;
        let fields: Vec<Vec<String>> = required.iter().filter_map(Value::as_str).map(words_of).collect();
        Some(self.facts.rows_with(&fields)).filter(|rows| *rows > 0 && !fields.is_empty())
    }

    fn number(&mut self, schema: &Map<String, Value>, at: &At<'_>, whole: bool) -> Option<Value> {
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let step = bound("multipleOf").or(whole.then_some(1.0));
        let inside = step.unwrap_or(1e-6);
        let least = [bound("minimum"), bound("exclusiveMinimum").map(|n| n + inside)].into_iter().flatten().reduce(f64::max);
        let most = [bound("maximum"), bound("exclusiveMaximum").map(|n| n - inside)].into_iter().flatten().reduce(f64::min);
        let span = (least.or(most.map(|m| m.min(0.0))).unwrap_or(0.0), most.or(least.map(|l| l + 100.0)).unwrap_or(100.0));
        let fits = |n: &f64| least.is_none_or(|l| *n >= l) && most.is_none_or(|m| *n <= m) && step.is_none_or(|s| (n / s).fract() == 0.0);
        let number = match self.fact(at).filter(fits) {
            Some(fact) => fact,
            None => {
                let any = span.0 + (span.1 - span.0) * self.dice.unit();
                match step {
                    Some(step) => Some((any / step).round() * step).filter(fits).or_else(|| Some((span.0 / step).ceil() * step))?,
                    None => Some((any * 100.0).round() / 100.0).filter(fits).unwrap_or(any),
                }
            }
        };
        let exact = number.fract() == 0.0 && number.abs() < 9e15;
        if whole || exact { Some((number as i64).into()) } else { Number::from_f64(number).map(Value::Number) }
    }

    /// The number in the text that a field's name asks for.
    fn fact(&self, at: &At<'_>) -> Option<f64> {
        let words = words_of(at.name);
        let has = |names: &[&str]| words.iter().any(|word| names.contains(&word.as_str()));
        if let Some(cell) = at.listed.then(|| self.facts.cell(&words, at.nth)).flatten().and_then(first_number) {
            return Some(cell);
        }
        let labelled = self.facts.labelled(&words).filter(|_| at.nth == 0 && !words.is_empty()).and_then(first_number);
        let (amounts, facts) = (&self.facts.amounts, self.facts);
        labelled.or_else(|| {
            if has(&["total"]) {
                amounts.iter().copied().reduce(f64::max)
            } else if has(&["amount", "price", "cost", "net", "gross", "sum", "subtotal", "fee", "balance", "tax", "vat"]) {
                amounts.get(at.nth % amounts.len().max(1)).copied()
            } else if has(&["year"]) {
                facts.numbers.iter().copied().find(|n| (1900.0..2100.0).contains(n))
            } else {
                None
            }
        })
    }

    /// A check that passes by default lets a demo go on; anything else is chance.
    fn flag(&mut self, at: &At<'_>) -> bool {
        const GOOD: [&str; 12] =
            ["ok", "pass", "passed", "passes", "valid", "approved", "correct", "complete", "grounded", "polite", "safe", "accurate"];
        words_of(at.name).iter().any(|word| GOOD.contains(&word.as_str())) || self.dice.below(2) == 0
    }

    fn text(&mut self, schema: &Map<String, Value>, at: &At<'_>) -> Option<Value> {
        let words = words_of(at.name);
        strings::string(schema, &Place { words: &words, nth: at.nth, listed: at.listed }, self.facts, &mut self.dice).map(Value::from)
    }
}

/// Adds what another schema asks for; of two bounds the narrower holds.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        let Some(old) = into.get_mut(&key) else {
            into.insert(key, value);
            continue;
        };
        match (key.as_str(), old, value) {
            ("properties" | "$defs" | "patternProperties", Value::Object(old), Value::Object(new)) => {
                for (name, schema) in new {
                    match old.get_mut(&name) {
                        Some(Value::Object(old)) if schema.is_object() => {
                            if let Value::Object(new) = schema {
                                merge(old, new);
                            }
                        }
                        _ => drop(old.insert(name, schema)),
                    }
                }
            }
            ("required", Value::Array(old), Value::Array(new)) => {
                for name in new {
                    if !old.contains(&name) {
                        old.push(name);
                    }
                }
            }
            ("enum", Value::Array(old), Value::Array(new)) => old.retain(|value| new.contains(value)),
            ("minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties", old, new) if new.as_f64() > old.as_f64() => {
                *old = new
            }
            ("maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties", old, new) if new.as_f64() < old.as_f64() => {
                *old = new
            }
            ("type", old @ Value::Array(_), new @ Value::String(_)) => *old = new,
            ("type", old @ Value::String(_), new @ Value::String(_)) if *old == "number" && new == "integer" => *old = new,
            ("const" | "pattern" | "format" | "items" | "anyOf" | "oneOf" | "additionalProperties", old, new) => *old = new,
            _ => {}
        }
    }
}
