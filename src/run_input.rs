//! A run's input from the command line: `--input` as a whole, `--set` piece by piece on top of it.

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use std::{fs, io};

/// One `--set key=value`.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    keys: Vec<String>,
    value: Value,
}

impl std::str::FromStr for Setting {
    type Err = String;

    /// The value is JSON if it reads as JSON, else text; dots in the key lead into objects.
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("expected key=value, such as `title=Notes` or `options.depth=3`")?;
        let keys: Vec<String> = key.split('.').map(str::to_owned).collect();
        if keys.iter().any(String::is_empty) {
            return Err(format!("`{key}` is not a key: expected words with dots between them, such as `options.depth`"));
        }
        Ok(Self { keys, value: serde_json::from_str(value).unwrap_or_else(|_| value.into()) })
    }
}

/// The input: `given` is JSON, `@file`, or `@-` for standard input; an empty object where nothing is given.
pub fn read(given: Option<&str>, settings: &[Setting]) -> anyhow::Result<Value> {
    let mut input = match given {
        None => Value::Object(Map::new()),
        Some("@-") => parse(&io::read_to_string(io::stdin()).context("--input: standard input can't be read")?, "standard input")?,
        Some(text) => match text.strip_prefix('@') {
            Some(file) => parse(&fs::read_to_string(file).with_context(|| format!("--input: {file} can't be read"))?, file)?,
            None => parse(text, "the text")?,
        },
    };
    for setting in settings {
        set(&mut input, setting)?;
    }
    Ok(input)
}

fn parse(text: &str, what: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text).map_err(|error| {
        anyhow::anyhow!("--input: {what} is not JSON: {error}\nExpected a document such as '{{\"title\": \"Notes\"}}', or @file with one")
    })
}

fn set(input: &mut Value, setting: &Setting) -> anyhow::Result<()> {
    let mut at = input;
    for (depth, key) in setting.keys.iter().enumerate() {
        let Value::Object(object) = at else {
            let path = setting.keys[..depth].join(".");
            let what = if depth == 0 { "the input".to_owned() } else { format!("`{path}`") };
            bail!("--set {}: {what} is not an object", setting.keys.join("."));
        };
        let last = depth + 1 == setting.keys.len();
        at = object.entry(key.clone()).or_insert_with(|| if last { Value::Null } else { Value::Object(Map::new()) });
    }
    *at = setting.value.clone();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(given: Option<&str>, settings: &[&str]) -> anyhow::Result<Value> {
        let settings: Vec<Setting> = settings.iter().map(|text| text.parse().expect("a setting")).collect();
        read(given, &settings)
    }

    #[test]
    fn settings_are_json_where_they_read_as_json_and_nest_by_dots() {
        let input = with(Some(r#"{"a": 1, "keep": true}"#), &["a=2", "b.c=text", "b.d=[1]", r#"e="3""#, "f=a=b", "g="]).expect("an input");
        assert_eq!(input, json!({"a": 2, "keep": true, "b": {"c": "text", "d": [1]}, "e": "3", "f": "a=b", "g": ""}));
        assert_eq!(with(None, &[]).expect("an input"), json!({}));
    }

    #[test]
    fn what_can_not_be_set_is_refused_with_its_place() {
        let refused = |given, settings: &[&str]| with(given, settings).expect_err("refused").to_string();
        assert!(refused(Some(r#"{"a": 1}"#), &["a.b=2"]).contains("`a` is not an object"));
        assert!(refused(Some("[]"), &["a=2"]).contains("the input is not an object"));
        assert!(refused(Some("{a: 1}"), &[]).contains("line 1 column 2"));
        assert!(refused(Some("@/nowhere.json"), &[]).contains("/nowhere.json can't be read"));
        assert!("a".parse::<Setting>().is_err() && ".a=1".parse::<Setting>().is_err() && "=1".parse::<Setting>().is_err());
    }

    #[test]
    fn a_file_is_named_with_an_at() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), r#"{"n": 7}"#).expect("written");
        assert_eq!(with(Some(&format!("@{}", file.path().display())), &[]).expect("an input"), json!({"n": 7}));
    }
}
