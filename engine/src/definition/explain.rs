//! What the language's schema finds wrong, as problems that a person can act on: one for each mistake, at the innermost place.

use super::{Problem, language_schema, model, pointer, suggest::suggest};
use crate::error::ErrorClass;
use jsonschema::{ValidationError, Validator, error::ValidationErrorKind as Kind};
use serde_json::Value;

/// Words of the language that later versions bring.
const LATER: [&str; 23] = [
    "triggers",
    "concurrency",
    "budget",
    "on_failure",
    "tests",
    "switch",
    "repeat",
    "workflow",
    "signal",
    "approval",
    "agent",
    "embed",
    "command",
    "worker",
    "with",
    "cache",
    "fallback",
    "repair",
    "stream",
    "memory",
    "secrets",
    "case",
    "until",
];

/// What other languages of workflows call our keys, where it does not look like them.
const ELSEWHERE: [(&str, &str); 8] = [
    ("retries", "retry"),
    ("depends_on", "needs"),
    ("if", "when"),
    ("condition", "when"),
    ("foreach", "map"),
    ("for_each", "map"),
    ("sleep", "wait"),
    ("request", "http"),
];

/// A problem, and whether it is about the name at its place.
pub(super) struct Finding {
    pub problem: Problem,
    pub about_key: bool,
}

/// Everything that the schema finds in the document, but unknown keys of steps: those name kinds, see `structure`.
pub(super) fn findings(validator: &Validator, schema: &Value, document: &Value) -> Vec<Finding> {
    let mut explainer = Explainer { schema, findings: Vec::new() };
    for error in validator.iter_errors(document) {
        explainer.explain(&error);
    }
    explainer.findings
}

/// An unknown key, with what was probably meant.
pub(super) fn unknown_key<'a>(pointer: String, known: impl Iterator<Item = &'a str> + Clone) -> Problem {
    let name = pointer::last(&pointer);
    let problem = Problem::new("unknown_key", pointer, format!("unknown key `{name}`"));
    if LATER.contains(&name.as_str()) {
        return problem.help(format!("this version of Krowoc does not have `{name}` yet"));
    }
    match meant(&name, known.clone()) {
        Some(word) => problem.help(format!("did you mean `{word}`?")),
        None => problem.help(format!("known here: {}", known.collect::<Vec<_>>().join(", "))),
    }
}

/// The known key that a name most likely stands for: what other languages call it, or the nearest, slips in either included.
pub(super) fn meant<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let foreign = ELSEWHERE.iter().filter_map(|(theirs, ours)| Some((*theirs, known.clone().find(|key| key == ours)?)));
    let all: Vec<(&str, &str)> = known.clone().map(|key| (key, key)).chain(foreign).collect();
    let words = || all.iter().map(|(word, _)| *word);
    let near = words().find(|word| *word == name).or_else(|| suggest(name, words()))?;
    all.iter().find(|(word, _)| *word == near).map(|(_, ours)| *ours)
}

struct Explainer<'a> {
    schema: &'a Value,
    findings: Vec<Finding>,
}

impl Explainer<'_> {
    fn explain(&mut self, error: &ValidationError<'_>) {
        match error.kind() {
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => self.explain_branches(error, context),
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                let parent = parent(error.schema_path().as_str());
                if parent == language_schema::STEP {
                    return;
                }
                let known = self.schema.pointer(parent).and_then(|s| s.get("properties")).and_then(Value::as_object);
                for name in unexpected {
                    let at = pointer::join(error.instance_path().as_str(), name);
                    let keys = known.into_iter().flat_map(|k| k.keys()).map(String::as_str);
                    self.findings.push(Finding { problem: unknown_key(at, keys), about_key: true });
                }
            }
            _ => self.findings.push(Finding { problem: self.leaf(error), about_key: false }),
        }
    }

    /// The branch that the author most likely meant: the value's type fits it, and the least is wrong.
    fn explain_branches(&mut self, error: &ValidationError<'_>, branches: &[Vec<ValidationError<'static>>]) {
        let here = error.instance_path().as_str();
        if let Some(options) = options(here, branches) {
            let problem = unknown_value(here, error.instance(), &options);
            return self.findings.push(Finding { problem, about_key: false });
        }
        let fits = |branch: &&Vec<ValidationError<'static>>| {
            !branch.iter().any(|e| e.instance_path().as_str() == here && matches!(e.kind(), Kind::Type { .. }))
        };
        let wrapped = self.schema.pointer(error.schema_path().as_str()).is_some_and(ends_with_expression);
        let meant = match branches {
            // "… or an expression" is said by the language, not by the kind: only the kind's own form can be missed.
            [form, _] if wrapped => Some(form),
            _ => branches.iter().filter(fits).min_by_key(|branch| branch.len()),
        };
        match meant {
            Some(branch) if !branch.is_empty() => branch.iter().for_each(|e| self.explain(e)),
            _ => {
                let found = found(error.instance());
                let problem = Problem::new("type_mismatch", here, format!("{found} fits none of the forms that are possible here"));
                self.findings.push(Finding { problem, about_key: false });
            }
        }
    }

    fn leaf(&self, error: &ValidationError<'_>) -> Problem {
        let at = error.instance_path().as_str();
        let value = error.instance();
        let rule = self.schema.pointer(parent(error.schema_path().as_str()));
        // The title of a scalar says what it looks like; that of a mapping is a heading.
        let title = rule.filter(|r| r.get("properties").is_none()).and_then(|r| r.get("title")).and_then(Value::as_str);
        if error.schema_path().as_str().starts_with("/$defs/Condition/") {
            return constant_when(at, value);
        }
        let limit = |code, word: &str, limit: &dyn std::fmt::Display, unit: &str| {
            Problem::new(code, at, format!("{} must {word} {limit}{unit}", subject(at)))
        };
        match error.kind() {
            Kind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                Problem::new("missing_key", at, format!("the key `{name}` is missing"))
            }
            Kind::Type { .. } => {
                let expected = rule.and_then(|r| r.get("type")).map(expected).unwrap_or_else(|| "something else".into());
                let expected = title.map_or(expected, str::to_owned);
                let problem = Problem::new("type_mismatch", at, format!("expected {expected}, found {}", found(value)));
                match without_unit(error.schema_path().as_str(), value) {
                    Some(meant) => problem.help(format!("write `{meant}`")),
                    None => problem,
                }
            }
            Kind::Enum { options } => unknown_value(at, value, options.as_array().map(Vec::as_slice).unwrap_or_default()),
            Kind::Constant { expected_value } => unknown_value(at, value, std::slice::from_ref(expected_value.as_ref())),
            Kind::Pattern { pattern } => {
                let message = match title {
                    Some(title) => format!("{} is not {title}", shown(value)),
                    None => format!("{} does not match `{pattern}`", shown(value)),
                };
                Problem::new("invalid_value", at, message)
            }
            Kind::Minimum { limit: n } => limit("out_of_range", "be at least", n, ""),
            Kind::Maximum { limit: n } => limit("out_of_range", "be at most", n, ""),
            Kind::ExclusiveMinimum { limit: n } => limit("out_of_range", "be more than", n, ""),
            Kind::ExclusiveMaximum { limit: n } => limit("out_of_range", "be less than", n, ""),
            Kind::MinLength { limit: n } => limit("out_of_range", "have at least", n, " characters"),
            Kind::MaxLength { limit: n } => limit("out_of_range", "have at most", n, " characters"),
            Kind::MinItems { limit: n } => limit("out_of_range", "have at least", n, " elements"),
            Kind::MaxItems { limit: n } => limit("out_of_range", "have at most", n, " elements"),
            Kind::MinProperties { limit: n } => limit("out_of_range", "have at least", n, " members"),
            Kind::MaxProperties { limit: n } => limit("out_of_range", "have at most", n, " members"),
            Kind::UniqueItems => Problem::new("duplicate_element", at, format!("{} names something twice", subject(at))),
            _ => Problem::new("invalid_value", at, error.to_string()),
        }
    }
}

/// What a number was meant for where a duration stands, or the bounds of a step's time.
fn without_unit(schema_path: &str, value: &Value) -> Option<String> {
    let seconds = value.as_u64()?;
    let is_at = |name: &str| schema_path.strip_prefix("/$defs/").and_then(|path| path.strip_prefix(name)) == Some("/type");
    match (is_at("Duration"), is_at("Timeout")) {
        (true, _) => Some(format!("{seconds}s")),
        (_, true) => Some(format!("{{attempt: {seconds}s}}")),
        _ => None,
    }
}

/// `when` is written as something that can't change.
pub(super) fn constant_when(at: &str, value: &Value) -> Problem {
    let problem = Problem::new("constant_when", at, "`when` is always the same");
    match value.as_str() {
        Some(text) if !text.trim().is_empty() && !text.contains("${{") => {
            problem.help(format!("an expression is written `${{{{ {text} }}}}`"))
        }
        _ => problem.help("write an expression that looks at `input` or at a step's output, or leave `when` out"),
    }
}

fn unknown_value(at: &str, value: &Value, options: &[Value]) -> Problem {
    let names: Vec<&str> = options.iter().filter_map(Value::as_str).collect();
    if at == "/krowoc" {
        return Problem::new("unknown_value", at, format!("this version of Krowoc reads `krowoc: v1`, not {}", shown(value)));
    }
    if let Some(why) = final_class(at, value) {
        return Problem::new("unknown_value", at, format!("{} is never retried", shown(value))).help(why);
    }
    let list = options.iter().map(shown).collect::<Vec<_>>().join(", ");
    let problem = match options {
        [only] => Problem::new("unknown_value", at, format!("expected {}, found {}", shown(only), shown(value))),
        _ => Problem::new("unknown_value", at, format!("{} is none of {list}", shown(value))),
    };
    match value.as_str().and_then(|text| suggest(text, names.iter().copied())) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem,
    }
}

/// Why a class that there is can't be retried.
fn final_class(at: &str, value: &Value) -> Option<&'static str> {
    let listed = at.rsplit_once('/').is_some_and(|(list, _)| list.ends_with("/retry/errors"));
    let class = ErrorClass::ALL.into_iter().find(|class| listed && value.as_str() == Some(class.name()));
    class.and_then(model::why_final)
}

fn ends_with_expression(branches: &Value) -> bool {
    let last = branches.as_array().and_then(|b| b.last()).and_then(|b| b.get("$ref")).and_then(Value::as_str);
    last.is_some_and(|r| r == "#/$defs/Expression" || r == "#/$defs/TextWithExpression")
}

fn parent(pointer: &str) -> &str {
    pointer.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The values that are possible, if the branches are nothing but those (a Rust enum whose variants are described).
fn options(here: &str, branches: &[Vec<ValidationError<'static>>]) -> Option<Vec<Value>> {
    let mut options = Vec::new();
    for branch in branches {
        let only = branch.iter().find(|e| matches!(e.kind(), Kind::Constant { .. } | Kind::Enum { .. }))?;
        if only.instance_path().as_str() != here {
            return None;
        }
        match only.kind() {
            Kind::Constant { expected_value } => options.push(expected_value.as_ref().clone()),
            Kind::Enum { options: several } => options.extend(several.as_array().into_iter().flatten().cloned()),
            _ => return None,
        }
    }
    Some(options)
}

/// What a pointer leads to, in words.
fn subject(at: &str) -> String {
    let name = pointer::last(at);
    match name.parse::<usize>() {
        Ok(position) => format!("element {position}"),
        Err(_) if name.is_empty() => "the document".into(),
        Err(_) => format!("`{name}`"),
    }
}

fn expected(types: &Value) -> String {
    let word = |t: &Value| match t.as_str().unwrap_or_default() {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        _ => "nothing",
    };
    match types {
        Value::Array(all) => all.iter().filter(|t| *t != "null").map(word).collect::<Vec<_>>().join(" or "),
        one => word(one).into(),
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
        Value::String(_) => format!("the text {}", shown(value)),
        other => shown(other),
    }
}

/// A value in a message, cut when it is long.
pub(super) fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => return "a mapping".into(),
        Value::Array(_) => return "a list".into(),
        other => other.to_string(),
    };
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("`{}…`", &text[..cut]),
        None => format!("`{text}`"),
    }
}
