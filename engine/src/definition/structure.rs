//! The shape of steps that a schema says badly (ids, one kind each, what applies to which kind), and the effective definition:
//! every default written into the steps, so that a stored version means the same to every binary.

use super::{
    Problem, defaults,
    explain::{Finding, meant, unknown_key},
    language_schema::IDENTIFIER,
    pointer,
};
use crate::executor::StepKinds;
use serde_json::{Map, Value};

/// The keys that every step may have; any other names a kind.
pub(super) const COMMON: [&str; 9] = ["description", "needs", "when", "join", "allow_failure", "queue", "output", "retry", "timeout"];
/// The kinds that are the engine's own.
pub(super) const OWN_KINDS: [&str; 2] = ["map", "wait"];
/// First words of expressions: no step and no item may be called so.
pub(super) const ROOTS: [&str; 8] = ["input", "steps", "run", "loop", "secrets", "failure", "body", "headers"];
/// Words that expressions read otherwise.
const WORDS: [&str; 19] = [
    "and",
    "or",
    "not",
    "in",
    "is",
    "if",
    "else",
    "true",
    "false",
    "none",
    "null",
    "self",
    "super",
    "range",
    "dict",
    "namespace",
    "debug",
    "recursive",
    "caller",
];

/// A step of a kind that is not the engine's own.
pub(super) struct Task {
    /// Of the configuration.
    pub pointer: String,
    pub kind: String,
}

/// What the pass over the steps found.
#[derive(Default)]
pub(super) struct Structure {
    pub findings: Vec<Finding>,
    pub tasks: Vec<Task>,
}

/// Checks every step and writes the defaults into it; what has no meaning is taken out, so that it is said once.
pub(super) fn settle(definition: &mut Value, kinds: &StepKinds) -> Structure {
    let shared = definition.as_object_mut().and_then(|d| d.shift_remove("defaults")).unwrap_or(Value::Null);
    let mut pass = Pass { kinds, shared, found: Structure::default() };
    if let Some(Value::Object(steps)) = definition.get_mut("steps") {
        pass.frame(steps, "/steps", &[]);
    }
    pass.found
}

/// A name that expressions can't tell from something else.
pub(super) fn is_reserved(name: &str) -> bool {
    ROOTS.contains(&name) || WORDS.contains(&name)
}

/// Is it written like the id of a step?
pub(super) fn is_identifier(name: &str) -> bool {
    debug_assert_eq!(IDENTIFIER, "^[a-z][a-z0-9_]{0,63}$");
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

struct Pass<'a> {
    kinds: &'a StepKinds,
    shared: Value,
    found: Structure,
}

impl Pass<'_> {
    /// Nested as deep as the document, which its parser bounds.
    fn frame(&mut self, steps: &mut Map<String, Value>, at: &str, items: &[String]) {
        for (id, step) in steps.iter_mut() {
            let at = pointer::join(at, id);
            self.id(id, &at, items);
            let Value::Object(step) = step else { continue };
            let Some(kind) = self.kind(id, step, &at) else { continue };
            self.applicable(&kind, step, &at);
            defaults::fill(step, &kind, self.kinds.get(&kind).is_some_and(|k| k.calls_out()), &self.shared);
            match step.get_mut(&kind) {
                Some(Value::Object(map)) if kind == "map" => {
                    let item = map.get("as").and_then(Value::as_str).unwrap_or("item").to_owned();
                    if let Some(Value::Object(body)) = map.get_mut("steps") {
                        self.frame(body, &format!("{at}/map/steps"), &[items, &[item]].concat());
                    }
                }
                Some(_) if !OWN_KINDS.contains(&kind.as_str()) => {
                    self.found.tasks.push(Task { pointer: pointer::join(&at, &kind), kind });
                }
                _ => {}
            }
        }
    }

    fn id(&mut self, id: &str, at: &str, items: &[String]) {
        if !is_identifier(id) {
            let problem = Problem::new("invalid_id", at, format!("`{id}` can't be a step's id"));
            let help = "small letters, digits and underscores, at most 64, a letter first";
            let near: String = id.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
            let help = if is_identifier(&near) { format!("{help}: `{near}`") } else { help.into() };
            self.about_key(problem.help(help));
        } else if is_reserved(id) {
            self.about_key(Problem::new("reserved_name", at, format!("`{id}` is a word of the language")).help("give the step another id"));
        } else if items.iter().any(|item| item == id) {
            let message = format!("`{id}` is the name of the item here");
            self.about_key(Problem::new("reserved_name", at, message).help("give the step another id, or the item another name with `as`"));
        }
    }

    /// The step's one kind. Keys that mean nothing are reported and taken out; so are the kinds, unless there is exactly one.
    fn kind(&mut self, id: &str, step: &mut Map<String, Value>, at: &str) -> Option<String> {
        let is_kind = |key: &str| OWN_KINDS.contains(&key) || self.kinds.get(key).is_some();
        let present: Vec<String> = step.keys().filter(|key| is_kind(key)).cloned().collect();
        let mut unknown: Vec<String> = step.keys().filter(|key| !COMMON.contains(&key.as_str()) && !is_kind(key)).cloned().collect();
        for key in &unknown {
            step.shift_remove(key);
        }
        let mut misnamed = None;
        if present.is_empty() {
            let position = unknown.iter().position(|key| meant(key, COMMON.into_iter()).is_none());
            misnamed = position.map(|p| unknown.remove(p));
        }
        for key in unknown {
            let problem = unknown_key(pointer::join(at, &key), COMMON.into_iter().chain(self.names()));
            self.about_key(problem);
        }
        match (present.as_slice(), misnamed) {
            ([kind], _) => return Some(kind.clone()),
            ([], Some(key)) => {
                let problem = unknown_key(pointer::join(at, &key), self.names());
                self.about_key(Problem { code: "unknown_kind", message: format!("unknown kind of step `{key}`"), ..problem });
            }
            ([], None) => {
                let problem = Problem::new("no_kind", at, format!("the step `{id}` does nothing"));
                self.about_key(problem.help(format!("add one of: {}", self.names().collect::<Vec<_>>().join(", "))));
            }
            ([first, second, ..], _) => {
                let message = format!("a step has one kind, `{id}` has `{first}` and `{second}`");
                self.about_key(Problem::new("several_kinds", pointer::join(at, second), message).help("make two steps of it"));
            }
        }
        for kind in present {
            step.shift_remove(&kind);
        }
        None
    }

    /// What the engine's own kinds can't have: accepting it and doing nothing would be a lie.
    fn applicable(&mut self, kind: &str, step: &Map<String, Value>, at: &str) {
        let refused: &[(&str, &str)] = match kind {
            "map" => &[("retry", "put it on the steps inside"), ("timeout", "put it on the steps inside")],
            "wait" => &[
                ("retry", "a wait can't fail and be tried again"),
                ("timeout", "the wait itself says how long"),
                ("output", "a wait has no output"),
            ],
            _ => &[],
        };
        for (key, help) in refused.iter().filter(|(key, _)| step.contains_key(*key)) {
            self.about_key(
                Problem::new("not_applicable", pointer::join(at, key), format!("`{key}` does not apply to `{kind}`")).help(*help),
            );
        }
    }

    /// What a step's kind may be called.
    fn names(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        let names: Vec<_> = self.kinds.iter().map(|k| k.name()).collect();
        names.into_iter().chain(OWN_KINDS)
    }

    fn about_key(&mut self, problem: Problem) {
        self.found.findings.push(Finding { problem, about_key: true });
    }
}
