//! A run's input from the command line: `--input` as a whole, `--set` piece by piece on top of it. What is wrong with them is a wrong
//! command line; whether the input fits the workflow is not known here.

use krowoc_engine::{
    Payload,
    definition::{Dag, Problem, join_pointer},
};
use serde_json::{Map, Value};
use std::{fs, io};

/// What stands for standard input.
const STDIN: &str = "@-";

/// One `--set key=value`.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    keys: Vec<String>,
    /// As it was written.
    text: String,
}

impl std::str::FromStr for Setting {
    type Err = String;

    /// Dots in the key lead into objects.
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("expected key=value, such as `title=Notes` or `options.depth=3`")?;
        let keys: Vec<String> = key.split('.').map(str::to_owned).collect();
        if keys.iter().any(String::is_empty) {
            return Err(format!("`{key}` is not a key: expected words with dots between them, such as `options.depth`"));
        }
        Ok(Self { keys, text: value.into() })
    }
}

impl Setting {
    fn option(&self) -> String {
        format!("--set {}", self.keys.join("."))
    }

    /// The option that makes a text of what was written.
    fn as_text(&self) -> String {
        format!("--set '{}={}'", self.keys.join("."), Value::from(self.text.as_str()))
    }

    /// JSON if the text, or that of the file it names, reads as JSON, else the text.
    fn value(&self) -> Result<Value, String> {
        let text = match named(&self.text) {
            None => self.text.clone(),
            Some(place) => {
                let wrong = |why| format!("{}: {why}\nIf the text itself is meant, write it as JSON: {}", self.option(), self.as_text());
                place.read().map_err(wrong)?
            }
        };
        Ok(serde_json::from_str(&text).unwrap_or_else(|_| text.into()))
    }

    fn pointer(&self) -> String {
        self.keys.iter().fold(String::new(), |pointer, key| join_pointer(&pointer, key))
    }
}

/// The input: `given` is JSON, `@file`, or `@-` for standard input; an empty object where nothing is given.
pub fn read(given: Option<&str>, settings: &[Setting]) -> Result<Value, String> {
    let texts = given.into_iter().chain(settings.iter().map(|setting| setting.text.as_str()));
    if texts.filter(|text| *text == STDIN).count() > 1 {
        return Err(format!("standard input can be read only once: give `{STDIN}` to one of --input and --set"));
    }
    let mut input = match given.map(|text| (text, named(text))) {
        None => Value::Object(Map::new()),
        Some((text, None)) => parse(text, "the text")?,
        Some((_, Some(place))) => parse(&place.read().map_err(|why| format!("--input: {why}"))?, place.name())?,
    };
    for setting in settings {
        set(&mut input, setting)?;
    }
    Ok(input)
}

/// Where a text is to be read from.
enum Place<'a> {
    Stdin,
    File(&'a str),
}

fn named(text: &str) -> Option<Place<'_>> {
    if text == STDIN { Some(Place::Stdin) } else { text.strip_prefix('@').map(Place::File) }
}

impl Place<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Stdin => "standard input",
            Self::File(file) => file,
        }
    }

    fn read(&self) -> Result<String, String> {
        let text = match self {
            Self::Stdin => io::read_to_string(io::stdin()),
            Self::File(file) => fs::read_to_string(file),
        };
        text.map_err(|error| format!("{} can't be read: {error}", self.name()))
    }
}

fn parse(text: &str, what: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| {
        format!("--input: {what} is not JSON: {error}\nExpected a document such as '{{\"title\": \"Notes\"}}', or @file with one")
    })
}

fn set(input: &mut Value, setting: &Setting) -> Result<(), String> {
    let mut at = input;
    for (depth, key) in setting.keys.iter().enumerate() {
        let Value::Object(object) = at else {
            let path = setting.keys[..depth].join(".");
            let what = if depth == 0 { "the input".to_owned() } else { format!("`{path}`") };
            return Err(format!("{}: {what} is not an object", setting.option()));
        };
        let last = depth + 1 == setting.keys.len();
        at = object.entry(key.clone()).or_insert_with(|| if last { Value::Null } else { Value::Object(Map::new()) });
    }
    *at = setting.value()?;
    Ok(())
}

/// What a workflow finds wrong with an input. Where a setting would be right as the text that was written, that is the advice: a shell
/// takes away the quotes that make `5` a text.
pub fn check(dag: &Dag, input: &Value, settings: &[Setting]) -> Vec<Problem> {
    let mut problems = dag.check_input(&Payload::from(input));
    for setting in settings.iter().filter(|setting| named(&setting.text).is_none()) {
        let pointer = setting.pointer();
        let Some(problem) = problems.iter_mut().find(|problem| problem.pointer == pointer) else { continue };
        let mut as_text = input.clone();
        if let Some(value) = as_text.pointer_mut(&pointer).filter(|value| !value.is_string()) {
            *value = setting.text.as_str().into();
            if !dag.check_input(&Payload::from(&as_text)).iter().any(|problem| problem.pointer == pointer) {
                problem.help = Some(format!("as a text: {}", setting.as_text()));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(given: Option<&str>, settings: &[&str]) -> Result<Value, String> {
        read(given, &parsed(settings))
    }

    fn parsed(settings: &[&str]) -> Vec<Setting> {
        settings.iter().map(|text| text.parse().expect("a setting")).collect()
    }

    #[test]
    fn settings_are_json_where_they_read_as_json_and_nest_by_dots() {
        let input = with(Some(r#"{"a": 1, "keep": true}"#), &["a=2", "b.c=text", "b.d=[1]", r#"e="3""#, "f=a=b", "g="]).expect("an input");
        assert_eq!(input, json!({"a": 2, "keep": true, "b": {"c": "text", "d": [1]}, "e": "3", "f": "a=b", "g": ""}));
        assert_eq!(with(None, &[]).expect("an input"), json!({}));
    }

    #[test]
    fn what_can_not_be_set_is_refused_with_its_place() {
        let refused = |given, settings: &[&str]| with(given, settings).expect_err("refused");
        assert!(refused(Some(r#"{"a": 1}"#), &["a.b=2"]).contains("`a` is not an object"));
        assert!(refused(Some("[]"), &["a=2"]).contains("the input is not an object"));
        assert!(refused(Some("{a: 1}"), &[]).contains("line 1 column 2"));
        assert!(refused(Some("@/nowhere.json"), &[]).contains("/nowhere.json can't be read"));
        assert!("a".parse::<Setting>().is_err() && ".a=1".parse::<Setting>().is_err() && "=1".parse::<Setting>().is_err());
    }

    #[test]
    fn a_file_is_named_with_an_at() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let (whole, part) = (format!("@{}", file.path().display()), format!("a.b=@{}", file.path().display()));
        fs::write(file.path(), r#"{"n": 7}"#).expect("written");
        assert_eq!(with(Some(&whole), &[]).expect("an input"), json!({"n": 7}));
        assert_eq!(with(None, &[&part]).expect("an input"), json!({"a": {"b": {"n": 7}}}));
        fs::write(file.path(), "Call Ada.\nBook the room.\n").expect("written");
        assert_eq!(with(None, &[&part]).expect("an input"), json!({"a": {"b": "Call Ada.\nBook the room.\n"}}));
        assert_eq!(with(None, &[r#"a="@ada""#]).expect("an input"), json!({"a": "@ada"}));
        let refused = with(None, &["a.b=@/nowhere.txt"]).expect_err("no such file");
        assert!(refused.contains("/nowhere.txt can't be read") && refused.contains(r#"--set 'a.b="@/nowhere.txt"'"#), "{refused}");
        let refused = with(Some("@-"), &["a=@-"]).expect_err("twice");
        assert!(refused.contains("only once"), "{refused}");
    }

    #[test]
    fn what_should_have_been_a_text_is_said_to_need_quotes() {
        let workflow = "krowoc: v1\nname: note\ninput: {type: object, properties: {note: {type: string}, size: {type: integer}, \
                        in: {type: object, properties: {a/b: {type: string, minLength: 3}}}}}\nsteps:\n  a: {transform: {x: 1}}\n";
        let kinds = krowoc_steps::kinds(krowoc_steps::StepsConfig::default());
        let dag = krowoc_engine::testing::workflow(&kinds, workflow).dag;
        let helps = |settings: &[&str]| {
            let settings = parsed(settings);
            let problems = check(&dag, &read(None, &settings).expect("an input"), &settings);
            problems.into_iter().map(|problem| problem.help.unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(helps(&["note=5"]), [r#"as a text: --set 'note="5"'"#]);
        assert_eq!(helps(&["note=five", "size=5"]), [""; 0]);
        assert_eq!(helps(&["size=five"]), [""], "quotes would not help");
        assert_eq!(helps(&["size=1.5"]), [""]);
        assert_eq!(helps(&["in.a/b=true"]), [r#"as a text: --set 'in.a/b="true"'"#]);
        assert_eq!(helps(&["in.a/b=1"]), [""], "too short all the same");
    }
}
