//! Looks into JSON text without building a tree: a lookup in a large payload costs a scan and no memory.

use super::Segment;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// The text of the value at the path; nothing if it is not there. Of repeated keys the last counts, as everywhere.
pub(super) fn find<'a>(text: &'a str, path: &[Segment]) -> Result<Option<&'a str>, serde_json::Error> {
    let mut text = text;
    for segment in path {
        match serde_json::Deserializer::from_str(text).deserialize_any(Step(segment))? {
            Some(inner) => text = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(text))
}

struct Step<'s>(&'s Segment);

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            match self.0 {
                Segment::Key(name) if *name == key => found = Some(map.next_value::<&RawValue>()?.get()),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        let mut number = 0;
        let mut found = None;
        while let Some(item) = seq.next_element::<&RawValue>()? {
            match self.0 {
                Segment::Index(index) if *index == number => found = Some(item.get()),
                // Counted from the end, which is known only there.
                Segment::Index(index) if *index < 0 => items.push(item.get()),
                _ => {}
            }
            number += 1;
        }
        if let Segment::Index(index) = self.0
            && *index < 0
        {
            found = items.len().checked_sub(index.unsigned_abs() as usize).and_then(|at| items.get(at).copied());
        }
        Ok(found)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// A key, borrowed unless it holds escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn key(k: &str) -> Segment {
        Segment::Key(k.into())
    }

    #[test]
    fn values_are_found_where_serde_json_finds_them() {
        let text = r#"{"a": [1, {"b\u0041": "x\u0000"}, 1.0, 18446744073709551615], "n": null, "a\"": {"": {}}, "d": 1, "d": 2}"#;
        for (path, expected) in [
            (vec![], Some(text)),
            (vec![key("a"), Segment::Index(0)], Some("1")),
            (vec![key("a"), Segment::Index(1), key("bA")], Some(r#""x\u0000""#)),
            (vec![key("a"), Segment::Index(2)], Some("1.0")),
            (vec![key("a"), Segment::Index(-1)], Some("18446744073709551615")),
            (vec![key("a"), Segment::Index(-4)], Some("1")),
            (vec![key("a"), Segment::Index(-5)], None),
            (vec![key("a"), Segment::Index(4)], None),
            (vec![key("a"), key("0")], None),
            (vec![key("n")], Some("null")),
            (vec![key("n"), key("x")], None),
            (vec![key("a\""), key("")], Some("{}")),
            (vec![key("d")], Some("2")),
            (vec![key("x")], None),
            (vec![Segment::Index(0)], None),
        ] {
            assert_eq!(find(text, &path).expect("JSON"), expected, "{path:?}");
        }
    }

    #[test]
    fn depth_is_no_danger_and_broken_text_is_an_error() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(find(&deep, &[key("a")]).is_ok_and(|found| found.is_some()));
        assert!(find("{\"a\":", &[key("a")]).is_err());
        let _: Value = serde_json::from_str(find("[{}]", &[Segment::Index(0)]).expect("JSON").expect("there")).expect("JSON");
    }
}
