//! The filters that every lookup becomes (see `rewrite`).

use super::{limits, value::check};
use minijinja::{Environment, Error, ErrorKind, State, Value, value::Rest};

/// What may become of a lookup's value.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Mode {
    absent_allowed: bool,
    weighed: bool,
}

impl Mode {
    /// It is used: it must be there.
    pub(super) const USED: Self = Self { absent_allowed: false, weighed: true };
    /// It is used in a way whose cost does not depend on what is inside.
    pub(super) const SEEN: Self = Self { absent_allowed: false, weighed: false };
    /// It may be absent: `default` or `is defined` follows.
    pub(super) const LOOK: Self = Self { absent_allowed: true, weighed: true };

    pub(super) fn absent_allowed(self) -> bool {
        self.absent_allowed
    }

    pub(super) fn weighed(self) -> bool {
        self.weighed
    }

    pub(super) fn filter(self) -> &'static str {
        match (self.absent_allowed, self.weighed) {
            (false, true) => "__use",
            (false, false) => "__see",
            (true, _) => "__look",
        }
    }
}

/// Adds the filters.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("__use", |state: &State, base: &Value, path: Rest<Value>| {
        let value = present(base, &path)?;
        limits::weigh(state, &value)?;
        Ok::<_, Error>(value)
    });
    environment.add_filter("__see", |base: &Value, path: Rest<Value>| present(base, &path));
    environment.add_filter("__look", |state: &State, base: &Value, path: Rest<Value>| {
        check(base)?;
        let value = path.iter().skip(1).try_fold(base.clone(), |value, key| get(&value, key))?;
        limits::weigh(state, &value)?;
        Ok::<_, Error>(value)
    });
}

/// Nothing is in what is absent.
fn get(value: &Value, key: &Value) -> Result<Value, Error> {
    let inner = if value.is_undefined() { Value::UNDEFINED } else { value.get_item(key)? };
    check(&inner).map(|()| inner)
}

/// Walks the path (after the name of its base); an error that names the part that is not there.
fn present(base: &Value, path: &[Value]) -> Result<Value, Error> {
    let keys = path.get(1..).unwrap_or_default();
    check(base)?;
    let mut value = base.clone();
    for (depth, key) in keys.iter().enumerate() {
        let inner = get(&value, key)?;
        if inner.is_undefined() {
            return Err(absent(path, depth, &value));
        }
        value = inner;
    }
    if value.is_undefined() {
        return Err(absent(path, 0, &value));
    }
    Ok(value)
}

fn absent(path: &[Value], depth: usize, last: &Value) -> Error {
    let whole = name(path);
    let key = path.get(depth + 1).map(ToString::to_string).unwrap_or_default();
    let known = name(&path[..=depth]);
    let reason = if last.is_undefined() {
        String::new()
    } else if last.downcast_object_ref::<super::bindings::StepView>().is_some() && key == "output" {
        let step = path.get(depth).map(ToString::to_string).unwrap_or_default();
        format!(": step `{step}` has no output, it did not succeed")
    } else if path.get(depth + 1).is_some_and(Value::is_integer) {
        format!(": `{known}` is {} without an item {key}", super::value::type_name(last))
    } else {
        format!(": `{known}` is {} without `{key}`", super::value::type_name(last))
    };
    Error::new(ErrorKind::InvalidOperation, format!("`{whole}` is absent{reason}"))
}

/// `steps.split.output[0].text`
fn name(path: &[Value]) -> String {
    let mut text = path.first().map(ToString::to_string).unwrap_or_default();
    for key in path.iter().skip(1) {
        match key.as_str() {
            Some(word) if word.chars().all(|c| c.is_alphanumeric() || c == '_') => text = format!("{text}.{word}"),
            Some(word) => text = format!("{text}['{word}']"),
            None => text = format!("{text}[{key}]"),
        }
    }
    text
}
