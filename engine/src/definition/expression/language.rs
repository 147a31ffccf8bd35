//! The one minijinja environment: what expressions and prompts may name. No clock, no chance, no files, no escaping for HTML.

use super::{filters, limits, lookup, meter, value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value};
use std::sync::LazyLock;

/// Names that only rewritten source uses; a leading `__` is refused in what people write, because these are not in [`FILTERS`].
pub(super) const WEIGH: &str = "__weigh";
pub(super) const CONCAT: &str = "__concat";
pub(super) const NO_ELSE: &str = "__no_else";
/// Before a value is put into a prompt.
pub(in crate::definition) const EMIT: &str = "__emit";
/// A variable that is never bound.
pub(super) const ABSENT: &str = "__absent";

/// The filters there are.
#[rustfmt::skip]
pub(super) const FILTERS: &[&str] = &[
    "abs", "attr", "batch", "bool", "capitalize", "chain", "chunks", "count", "d", "default", "dictsort", "e", "escape", "first",
    "float", "format", "from_json", "groupby", "indent", "int", "items", "join", "json", "last", "length", "lines", "list", "lower",
    "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "select", "selectattr", "slice", "slug", "sort",
    "split", "string", "sum", "title", "tojson", "trim", "unique", "upper", "words", "zip",
];

/// Those whose result is never a list or an object, or is one that was weighed before.
#[rustfmt::skip]
pub(super) const SCALAR_FILTERS: &[&str] = &[
    "abs", "bool", "capitalize", "count", "e", "escape", "float", "format", "indent", "int", "join", "json", "length", "lower",
    "replace", "round", "slug", "string", "title", "tojson", "trim", "upper", "words",
];

/// The tests there are.
#[rustfmt::skip]
pub(super) const TESTS: &[&str] = &[
    "boolean", "defined", "divisibleby", "endingwith", "eq", "equalto", "even", "false", "float", "ge", "greaterthan", "gt", "in",
    "int", "integer", "iterable", "le", "lessthan", "lower", "lt", "mapping", "ne", "none", "number", "odd", "sameas", "sequence",
    "startingwith", "string", "true", "undefined", "upper",
];

/// Tests that can only be named in a string: `select('>', 3)`.
pub(super) const OPERATOR_TESTS: &[&str] = &["==", "!=", "<", "<=", ">", ">="];

/// The functions there are.
pub(super) const FUNCTIONS: &[&str] = &["dict", "range"];

/// The environment.
pub(in crate::definition) static LANGUAGE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_fuel(Some(limits::FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // Debug information of errors would hold the values of variables.
    environment.set_debug(false);
    environment.set_formatter(|out, _, value| {
        let mut text = String::new();
        value::append_text(&mut text, value, &mut value::Room::new()).map_err(invalid)?;
        out.write_str(&text).map_err(Error::from)
    });
    // `safe` and what goes with it mean nothing without escaping; `pprint` and `debug` show minijinja's inside; `namespace` would
    // let a loop build values that nest without end.
    for filter in ["safe", "pprint"] {
        environment.remove_filter(filter);
    }
    for test in ["safe", "escaped", "filter", "test"] {
        environment.remove_test(test);
    }
    for function in ["debug", "namespace"] {
        environment.remove_global(function);
    }
    environment.add_function("range", limits::range);
    environment.add_filter(WEIGH, |state: &State, value: Value| limits::weigh(state, &value).map(|()| value));
    environment.add_filter(NO_ELSE, |_: &Value| Err::<Value, _>(invalid("the test of an inline `if` without `else` is false".into())));
    environment.add_filter(EMIT, |value: Value, name: &str| match value.kind() {
        minijinja::value::ValueKind::None => Err(invalid(format!("`{name}` is null, which can't be put into a text; test it with `if`"))),
        _ => Ok(value),
    });
    environment.add_filter(CONCAT, filters::concat);
    lookup::add_to(&mut environment);
    meter::add_to(&mut environment);
    filters::add_to(&mut environment);
    environment
});

/// An error of a filter, with our words only.
pub(super) fn invalid(why: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}
