//! From minijinja's values to JSON and to text, faithfully and within [`MAX_OUTPUT`].

use super::limits::{FUEL, MAX_DEPTH, MAX_OUTPUT};
use minijinja::{Value, value::ValueKind};
use serde_json::{Map, Number, Value as Json};

pub(super) const TOO_MUCH: &str = "it takes too much work or memory";

/// What a render may still produce, and what its expressions have cost so far.
pub(in crate::definition) struct Room {
    bytes: usize,
    /// Fuel.
    pub(in crate::definition) spent: u64,
}

impl Room {
    pub(in crate::definition) fn new() -> Self {
        Self::with_spent(0)
    }

    /// For a render that has less than all fuel.
    pub(super) fn with_spent(spent: u64) -> Self {
        Self { bytes: MAX_OUTPUT, spent }
    }

    /// Takes fuel for work that minijinja knows nothing of.
    pub(super) fn spend(&mut self, fuel: u64) -> Result<(), String> {
        self.spent = self.spent.saturating_add(fuel);
        if self.spent > FUEL { Err(TOO_MUCH.into()) } else { Ok(()) }
    }

    /// Takes `bytes`; the error says that nothing is left.
    pub(in crate::definition) fn take(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| format!("the result is larger than {} MiB", MAX_OUTPUT >> 20))?;
        Ok(())
    }
}

/// The value as JSON. An absent value, a number that JSON lacks, bytes and functions are errors.
pub(in crate::definition) fn to_json(value: &Value, room: &mut Room) -> Result<Json, String> {
    json_at(value, room, 0)
}

fn json_at(value: &Value, room: &mut Room, depth: usize) -> Result<Json, String> {
    // A comma or colon for each value; what it is made of is counted below.
    room.take(1)?;
    if depth > MAX_DEPTH {
        return Err(format!("the result is nested more than {MAX_DEPTH} deep"));
    }
    Ok(match value.kind() {
        ValueKind::Undefined if depth == 0 => return Err("it has no value".into()),
        ValueKind::Undefined => return Err("an item of the result is absent".into()),
        ValueKind::None => {
            room.take(4)?;
            Json::Null
        }
        ValueKind::Bool => {
            room.take(4)?;
            Json::Bool(value.is_true())
        }
        ValueKind::Number => {
            room.take(8)?;
            Json::Number(number(value)?)
        }
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            room.take(text.len() + 2)?;
            Json::String(text.to_owned())
        }
        ValueKind::Map => {
            let object = value.as_object().ok_or("a value can't be read")?;
            let mut map = Map::new();
            for (key, item) in object.try_iter_pairs().into_iter().flatten() {
                let key = key_text(&key)?;
                room.take(key.len() + 3)?;
                let item = json_at(&item, room, depth + 1).map_err(|why| named_absent(why, &key))?;
                map.insert(key, item);
            }
            Json::Object(map)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let iter = value.try_iter().map_err(|e| why(&e))?;
            Json::Array(iter.map(|item| json_at(&item, room, depth + 1)).collect::<Result<_, _>>()?)
        }
        ValueKind::Invalid => return Err(check(value).err().map_or_else(|| "a value is invalid".into(), |e| why(&e))),
        kind => return Err(format!("the result holds a {kind}, which JSON has not")),
    })
}

fn named_absent(why: String, key: &str) -> String {
    if why == "an item of the result is absent" { format!("`{key}` of the result is absent") } else { why }
}

fn key_text(key: &Value) -> Result<String, String> {
    match key.kind() {
        ValueKind::String | ValueKind::Number | ValueKind::Bool => Ok(key.to_string()),
        kind => Err(format!("a key of the result is a {kind}; keys are strings")),
    }
}

fn number(value: &Value) -> Result<Number, String> {
    if value.is_integer() {
        return i64::try_from(value.clone())
            .map(Number::from)
            .or_else(|_| u64::try_from(value.clone()).map(Number::from))
            .map_err(|_| format!("the number {value} does not fit into 64 bits"));
    }
    let float = f64::try_from(value.clone()).map_err(|e| why(&e))?;
    Number::from_f64(float).ok_or_else(|| format!("{float} is no JSON number"))
}

/// The value inside a text: strings as they are, other values as JSON. Null and absent values are errors.
pub(in crate::definition) fn append_text(out: &mut String, value: &Value, room: &mut Room) -> Result<(), String> {
    match value.kind() {
        ValueKind::Undefined => Err("an absent value can't be put into a text; `default(…)` replaces it".into()),
        ValueKind::None => Err("null can't be put into a text; replace it with `… or '…'`, or test it with `is none`".into()),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            room.take(text.len())?;
            out.push_str(text);
            Ok(())
        }
        ValueKind::Number => {
            let number = number(value)?.to_string();
            room.take(number.len())?;
            out.push_str(&number);
            Ok(())
        }
        _ => {
            out.push_str(&to_json(value, room)?.to_string());
            Ok(())
        }
    }
}

/// The error that an invalid value carries: a payload that can't be parsed, an iterator that failed.
pub(super) fn check(value: &Value) -> Result<(), minijinja::Error> {
    if value.kind() != ValueKind::Invalid {
        return Ok(());
    }
    // Only iteration hands the error out.
    Value::from(vec![value.clone()]).try_iter()?.checked().try_for_each(|item| item.map(drop))
}

/// The type in JSON's words.
pub(in crate::definition) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "absent",
        ValueKind::None => "null",
        ValueKind::Bool => "a boolean",
        ValueKind::Number => "a number",
        ValueKind::String => "a string",
        ValueKind::Map => "an object",
        ValueKind::Seq | ValueKind::Iterable => "a list",
        _ => "no JSON value",
    }
}

/// The reason of a minijinja error, in our words where its own don't help the author of a workflow.
pub(in crate::definition) fn why(error: &minijinja::Error) -> String {
    use minijinja::ErrorKind;
    match error.kind() {
        ErrorKind::OutOfFuel => TOO_MUCH.into(),
        ErrorKind::UndefinedError => "an absent value is used; `default(…)` replaces it".into(),
        kind => match error.detail() {
            Some(detail) => detail.to_owned(),
            None => kind.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn round_trip(text: &str) -> Result<String, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        to_json(&value, &mut Room::new()).map(|json| json.to_string())
    }

    #[test]
    fn numbers_strings_and_the_order_of_keys_survive() {
        for text in [
            "null",
            "0",
            "-1",
            "18446744073709551615",
            "9223372036854775808",
            "-9223372036854775808",
            "1.0",
            "-0.0",
            "0.1",
            "1e300",
            "5e-324",
            "1.7976931348623157e308",
            r#""a\u0000b""#,
            r#"{"z":1,"a":{"y":[],"b":{}},"m":[1,1.0,"1",null,true]}"#,
        ] {
            let expected: Json = serde_json::from_str(text).expect("JSON");
            assert_eq!(round_trip(text), Ok(expected.to_string()), "{text}");
        }
    }

    #[test]
    fn text_holds_strings_as_they_are_and_other_values_as_json() {
        for (value, expected) in [
            (json!("a\"b"), "a\"b"),
            (json!(true), "true"),
            (json!(1.0), "1.0"),
            (json!([1, "a", null]), "[1,\"a\",null]"),
            (json!({"b": 1, "a": {}}), "{\"b\":1,\"a\":{}}"),
        ] {
            let mut out = String::new();
            append_text(&mut out, &Value::from(minijinja::value::Serde(&value)), &mut Room::new()).expect("text");
            assert_eq!(out, expected);
        }
        for value in [Value::from(()), Value::UNDEFINED, Value::from_iter([Value::UNDEFINED]), Value::from(f64::NAN)] {
            assert!(append_text(&mut String::new(), &value, &mut Room::new()).is_err(), "{value:?}");
        }
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Json::from),
            any::<String>().prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
                prop::collection::vec((any::<String>(), inner), 0..6).prop_map(|pairs| Json::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_comes_back_the_same(json in any_json()) {
            // Through text on both sides, as payloads travel; serde_json reads some floats one unit off, so its own reading counts.
            let text = json.to_string();
            let expected: Json = serde_json::from_str(&text).expect("JSON");
            prop_assert_eq!(round_trip(&text), Ok(expected.to_string()));
        }
    }
}
