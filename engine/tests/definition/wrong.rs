//! One row for each rule of the language: a file with one mistake → one problem, at its place, with its advice.

use crate::kinds::{Needs, Prompts, compiled, kinds};
use krowoc_engine::definition::{Problem, Source, compile};

/// (what is wrong, the steps and what else follows `krowoc` and `name`, code, line, column, part of the message or advice).
/// Lines count from the first of the row's text, which stands below two lines of head.
type Row = (&'static str, &'static str, &'static str, u32, u32, &'static str);

const HEAD: &str = "krowoc: v1\nname: test\n";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Keys
    ("unknown key of the file", "timout: 5m\nsteps: {a: {transform: 1}}", "unknown_key", 1, 1, "did you mean `timeout`?"),
    ("later key of the file", "triggers: []\nsteps: {a: {transform: 1}}", "unknown_key", 1, 1, "does not have `triggers` yet"),
    ("unknown key of a step", "steps:\n  a:\n    tiemout: {}\n    transform: 1", "unknown_key", 3, 5, "did you mean `timeout`?"),
    ("later key of a step", "steps:\n  a:\n    transform: 1\n    cache: {ttl: 7d}", "unknown_key", 4, 5, "does not have `cache` yet"),
    ("letters of a key the wrong way round", "steps:\n  a:\n    tiemuot: {total: 5s}\n    transform: 1", "unknown_key", 3, 5, "did you mean `timeout`?"),
    ("key of another language", "steps:\n  a:\n    retries: 3\n    transform: 1", "unknown_key", 3, 5, "did you mean `retry`?"),
    ("slip in a key of another language", "steps:\n  a:\n    retires: 3\n    transform: 1", "unknown_key", 3, 5, "did you mean `retry`?"),
    ("unknown key of a map", "steps:\n  a:\n    map: {over: [1], step: {}, steps: {b: {transform: 1}}}", "unknown_key", 3, 22, "did you mean `steps`?"),
    ("unknown key of a retry", "steps:\n  a:\n    transform: 1\n    retry: {attemps: 3}", "unknown_key", 4, 13, "did you mean `attempts`?"),
    ("unknown key of a kind", "steps:\n  a:\n    http: {url: 'http://x', metod: GET}", "unknown_key", 3, 29, "did you mean `method`?"),
    ("unknown key with nothing near", "steps:\n  a:\n    wait: {for: 1s, zzzzzz: 1}", "unknown_key", 3, 21, "known here: for, until"),
    ("unknown key in a list of a kind", "steps:\n  a:\n    llm: {model: m, messages: [{role: user, content: a, nam: b}]}", "unknown_key", 3, 57, "known here: role, content"),
    ("missing key of a map", "steps:\n  a:\n    map: {over: [1]}", "missing_key", 3, 5, "the key `steps` is missing"),
    ("missing key of a kind", "steps:\n  a:\n    http: {method: GET}", "missing_key", 3, 5, "the key `url` is missing"),
    ("missing key in a list of a kind", "steps:\n  a:\n    llm: {model: m, messages: [{role: user}]}", "missing_key", 3, 32, "the key `content` is missing"),
    ("no steps", "steps: {}", "out_of_range", 1, 1, "`steps` must have at least 1 members"),
    // Values
    ("text for a mapping", "steps:\n  a: soon", "type_mismatch", 2, 6, "expected a mapping, found the text `soon`"),
    ("nothing for a mapping", "steps:\n  a:\n  b: {transform: 1}", "type_mismatch", 2, 3, "expected a mapping, found nothing"),
    ("text for a number", "steps:\n  a:\n    transform: 1\n    retry: {attempts: many}", "type_mismatch", 4, 23, "expected a whole number, found the text `many`"),
    ("too few attempts", "steps:\n  a:\n    transform: 1\n    retry: {attempts: 0}", "out_of_range", 4, 23, "`attempts` must be at least 1"),
    ("too many attempts", "steps:\n  a:\n    transform: 1\n    retry: {attempts: 1001}", "out_of_range", 4, 23, "`attempts` must be at most 1000"),
    ("unknown error class", "steps:\n  a:\n    transform: 1\n    retry: {errors: [timeout, overlaoded]}", "unknown_value", 4, 31, "did you mean `overloaded`?"),
    ("error class that `on_lost` governs", "steps:\n  a:\n    transform: 1\n    retry: {errors: [timeout, lost]}", "unknown_value", 4, 31, "`on_lost` says"),
    ("error class that is final", "defaults: {retry: {errors: [total_timeout]}}\nsteps: {a: {http: {url: 'http://x'}}}", "unknown_value", 1, 29, "raise `timeout.total`"),
    ("error class twice", "steps:\n  a:\n    transform: 1\n    retry: {errors: [timeout, timeout]}", "duplicate_element", 4, 13, "`errors` names something twice"),
    ("unknown answer to loss", "steps:\n  a:\n    transform: 1\n    retry: {on_lost: forget}", "unknown_value", 4, 22, "none of"),
    ("unknown backoff", "steps:\n  a:\n    transform: 1\n    retry: {backoff: {kind: linear}}", "unknown_value", 4, 29, "none of"),
    ("backoff that starts past its end", "steps:\n  a:\n    transform: 1\n    retry: {backoff: {initial: 2m}}", "out_of_range", 4, 32, "raise `max` too"),
    ("unknown join", "steps:\n  a:\n    transform: 1\n    join: all_suceeded", "unknown_value", 4, 11, "did you mean `all_succeeded`?"),
    ("no truth value", "steps:\n  a:\n    transform: 1\n    allow_failure: yes", "type_mismatch", 4, 20, "expected true or false, found the text `yes`"),
    ("queue of 64 characters", "steps:\n  a:\n    transform: 1\n    queue: q234567890123456789012345678901234567890123456789012345678901234", "invalid_value", 4, 12, "at most 63"),
    ("queue with a space", "steps:\n  a:\n    transform: 1\n    queue: my queue", "invalid_value", 4, 12, "`my queue` is not small letters"),
    ("no duration", "timeout: 5 minutes\nsteps: {a: {transform: 1}}", "invalid_value", 1, 10, "`5 minutes` is no duration"),
    ("number for a duration", "timeout: 90\nsteps: {a: {transform: 1}}", "type_mismatch", 1, 10, "expected a duration such as `90s`, `1h30m` or `2d`, found `90`"),
    ("number without a unit", "timeout: 5\nsteps: {a: {transform: 1}}", "type_mismatch", 1, 10, "write `5s`"),
    ("number for a bound of a step's time", "steps:\n  a:\n    transform: 1\n    timeout: {attempt: 90}", "type_mismatch", 4, 24, "write `90s`"),
    ("number for the bounds of a step's time", "steps:\n  a:\n    transform: 1\n    timeout: 5", "type_mismatch", 4, 14, "write `{attempt: 5s}`"),
    ("unknown unit of a step's timeout", "steps:\n  a:\n    transform: 1\n    timeout: {attempt: 5x}", "invalid_value", 4, 24, "`x` is no unit"),
    ("timeout of nothing", "steps:\n  a:\n    transform: 1\n    timeout: {idle: 0s}", "out_of_range", 4, 21, "longer than nothing"),
    ("wrong default", "defaults: {retry: {attempts: 0}}\nsteps: {a: {http: {url: 'http://x'}}, b: {http: {url: 'http://x'}}}", "out_of_range", 1, 30, "at least 1"),
    ("wrong default found by the reader", "defaults: {timeout: {attempt: 0s}}\nsteps: {a: {http: {url: 'http://x'}}, b: {http: {url: 'http://x'}}}", "out_of_range", 1, 31, "longer than nothing"),
    ("wrong value in a kind", "steps:\n  a:\n    http: {url: 'http://x', method: PATSH}", "unknown_value", 3, 37, "none of `GET`, `POST`, `PUT`"),
    ("pattern of a kind", "steps:\n  a:\n    http: {url: ftp://x}", "invalid_value", 3, 17, "does not match `^https?://`"),
    ("range of a kind", "steps:\n  a:\n    llm: {model: m, temperature: 3}", "out_of_range", 3, 34, "at most 2"),
    ("nested value of a kind", "steps:\n  a:\n    llm: {model: m, messages: [{role: robot, content: x}]}", "unknown_value", 3, 39, "none of"),
    ("the nearest form of several", "steps:\n  a:\n    http: {url: 'http://x', expect: {from: 200}}", "missing_key", 3, 29, "the key `to` is missing"),
    ("none of several forms", "steps:\n  a:\n    http: {url: 'http://x', expect: fine}", "type_mismatch", 3, 37, "fits none of the forms"),
    ("wrong value in a kind's defaults", "defaults: {llm: {model: m, temperature: 9}}\nsteps: {a: {llm: {}}, b: {llm: {}}}", "out_of_range", 1, 41, "at most 2"),
    ("what a kind finds itself", "steps:\n  a:\n    llm: {model: wrong}", "unknown_model", 3, 18, "no model is called `wrong`"),
    ("what a kind finds in defaults", "defaults: {llm: {model: wrong}}\nsteps: {a: {llm: {}}, b: {llm: {}}}", "unknown_model", 1, 25, "no model is called `wrong`"),
    ("what a kind misses", "steps:\n  a:\n    llm: {prompt: greet}", "missing_key", 3, 5, "under `defaults`"),
    ("unknown prompt", "steps:\n  a:\n    llm: {model: m, prompt: gret@prod}", "unknown_prompt", 3, 29, "did you mean `greet`?"),
    ("computed prompt", "steps:\n  a:\n    llm: {model: m, prompt: \"${{ input.p }}\"}", "dynamic_prompt", 3, 29, "pinned"),
    // Names
    ("id with a dash", "steps:\n  my-step: {transform: 1}", "invalid_id", 2, 3, "`my_step`"),
    ("reserved id", "steps:\n  input: {transform: 1}", "reserved_name", 2, 3, "word of the language"),
    ("id of the item", "steps:\n  a:\n    map: {over: [1], steps: {item: {transform: 1}}}", "reserved_name", 3, 30, "name of the item"),
    ("reserved item", "steps:\n  a:\n    map: {over: [1], as: run, steps: {b: {transform: 1}}}", "reserved_name", 3, 26, "word of the language"),
    ("item with a dash", "steps:\n  a:\n    map: {over: [1], as: a-b, steps: {b: {transform: 1}}}", "invalid_id", 3, 26, "can't be an item's name"),
    ("item of the enclosing map", "steps:\n  a:\n    map: {over: [1], as: x, steps: {b: {map: {over: [1], as: x, steps: {c: {transform: 1}}}}}}", "reserved_name", 3, 62, "enclosing map `a`"),
    // Kinds
    ("no kind", "steps:\n  a: {needs: []}", "no_kind", 2, 3, "add one of: http, llm, transform, map, wait"),
    ("two kinds", "steps:\n  a:\n    transform: 1\n    http: {url: 'http://x'}", "several_kinds", 4, 5, "two steps"),
    ("kind of another language", "steps:\n  a:\n    sleep: 5s", "unknown_kind", 3, 5, "did you mean `wait`?"),
    ("unknown kind", "steps:\n  a:\n    lmm: {model: m}", "unknown_kind", 3, 5, "did you mean `llm`?"),
    ("later kind", "steps:\n  a:\n    approval: {title: x}", "unknown_kind", 3, 5, "does not have `approval` yet"),
    ("retry of a map", "steps:\n  a:\n    retry: {}\n    map: {over: [1], steps: {b: {transform: 1}}}", "not_applicable", 3, 5, "steps inside"),
    ("timeout of a wait", "steps:\n  a:\n    wait: {for: 1s}\n    timeout: {total: 5s}", "not_applicable", 4, 5, "how long"),
    ("output of a wait", "steps:\n  a:\n    wait: {for: 1s}\n    output: {}", "not_applicable", 4, 5, "no output"),
    // The engine's own kinds
    ("a list that is text", "steps:\n  a:\n    map: {over: all, steps: {b: {transform: 1}}}", "invalid_value", 3, 17, "`all` is no list"),
    ("a list that is a number", "steps:\n  a:\n    map: {over: 3, steps: {b: {transform: 1}}}", "type_mismatch", 3, 17, "a list"),
    ("no items at once", "steps:\n  a:\n    map: {over: [1], concurrency: 0, steps: {b: {transform: 1}}}", "out_of_range", 3, 35, "at least 1"),
    ("tolerance past all", "steps:\n  a:\n    map: {over: [1], tolerate: 101%, steps: {b: {transform: 1}}}", "invalid_value", 3, 32, "`101%` is not a number of items or a part"),
    ("tolerance below nothing", "steps:\n  a:\n    map: {over: [1], tolerate: -1, steps: {b: {transform: 1}}}", "out_of_range", 3, 32, "at least 0"),
    ("the same key for all", "steps:\n  a:\n    map: {over: [1], key: same, steps: {b: {transform: 1}}}", "constant_key", 3, 27, "over the item"),
    ("wait for nothing", "steps:\n  a:\n    wait: {}", "missing_key", 3, 5, "`for` or `until`"),
    ("wait for two things", "steps:\n  a:\n    wait: {for: 1s, until: '2030-01-01T00:00:00Z'}", "conflicting_keys", 3, 28, "either"),
    ("wait for no duration", "steps:\n  a:\n    wait: {for: soon}", "invalid_value", 3, 17, "`soon` is no duration"),
    ("wait for less than nothing", "steps:\n  a:\n    wait: {for: -1}", "out_of_range", 3, 17, "at least 0"),
    ("wait until no time", "steps:\n  a:\n    wait: {until: tomorrow}", "invalid_value", 3, 19, "RFC 3339"),
    // Conditions and expressions
    ("a constant condition", "steps:\n  a:\n    when: true\n    transform: 1", "constant_when", 3, 11, "always the same"),
    ("a condition that is no expression", "steps:\n  a:\n    when: input.ok\n    transform: 1", "constant_when", 3, 11, "`${{ input.ok }}`"),
    ("an expression without lookups", "steps:\n  a:\n    when: ${{ 1 > 0 }}\n    transform: 1", "constant_when", 3, 11, "always the same"),
    ("no expression syntax", "steps:\n  a:\n    transform: ${{ 1 + }}", "expression_syntax", 3, 16, ""),
    ("an expression that is not closed", "steps:\n  a:\n    transform: ${{ input.x", "expression_syntax", 3, 16, "closing"),
    // References
    ("unknown step", "steps:\n  fetch: {transform: 1}\n  b: {transform: \"${{ steps.fecth.output }}\"}", "unknown_step", 3, 18, "did you mean `fetch`?"),
    ("step without output", "steps:\n  a: {transform: 1}\n  b: {transform: \"${{ steps.a.result }}\"}", "incomplete_reference", 3, 18, "`steps.a.output`"),
    ("steps without a step", "steps:\n  b: {transform: \"${{ steps }}\"}", "incomplete_reference", 2, 18, "id of a step"),
    ("computed step", "steps:\n  b: {transform: \"${{ steps[input.x].output }}\"}", "incomplete_reference", 2, 18, "can't be computed"),
    ("itself", "steps:\n  b: {transform: \"${{ steps.b.output }}\"}", "self_reference", 2, 18, "its own output"),
    ("its own map", "steps:\n  a:\n    map:\n      over: [1]\n      steps: {b: {transform: \"${{ steps.a.output }}\"}}", "self_reference", 5, 30, "inside `a`"),
    ("inside another map", "steps:\n  a:\n    map: {over: [1], steps: {inner: {transform: 1}}}\n  b: {transform: \"${{ steps.inner.output }}\"}", "unknown_step", 4, 18, "inside the map `a`"),
    ("output from inside a map", "steps:\n  a:\n    map: {over: [1], steps: {inner: {transform: 1}}}\noutput: ${{ steps.inner.output }}", "unknown_step", 4, 9, "inside the map `a`"),
    ("`over` from the body", "steps:\n  a:\n    map:\n      over: ${{ steps.inner.output }}\n      steps: {inner: {transform: 1}}", "unknown_step", 4, 13, "inside the map `a`"),
    ("unknown name", "steps:\n  a: {transform: \"${{ inptu.x }}\"}", "unknown_name", 2, 18, "did you mean `input`?"),
    ("a step's bare id", "steps:\n  a: {transform: 1}\n  b: {transform: \"${{ a.x }}\"}", "unknown_name", 3, 18, "`steps.a.output`"),
    ("an item out of scope", "steps:\n  a:\n    map: {over: [1], as: part, steps: {b: {transform: 1}}}\n  c: {transform: \"${{ part.x }}\"}", "unknown_name", 4, 18, "there are"),
    ("an item in its own list", "steps:\n  a:\n    map: {over: \"${{ item.x }}\", steps: {b: {transform: 1}}}", "unknown_name", 3, 17, "`item`"),
    ("secrets", "steps:\n  a: {transform: \"${{ secrets.key }}\"}", "not_available", 2, 18, "does not have yet"),
    ("loop", "steps:\n  a: {transform: \"${{ loop.index }}\"}", "not_available", 2, 18, "inside `repeat`"),
    ("failure", "steps:\n  a: {transform: \"${{ failure.class }}\"}", "not_available", 2, 18, "`on_failure`"),
    ("body", "steps:\n  a: {transform: \"${{ body.x }}\"}", "not_available", 2, 18, "webhook"),
    ("unknown fact of the run", "steps:\n  a: {transform: \"${{ run.started }}\"}", "unknown_field", 2, 18, "it has"),
    ("later fact of the run", "steps:\n  a: {transform: \"${{ run.cost_usd }}\"}", "unknown_field", 2, 18, "does not have `run.cost_usd` yet"),
    ("unknown field of the input", "input: {type: object, properties: {doc: {type: string}}, additionalProperties: false}\nsteps:\n  a: {transform: \"${{ input.dok }}\"}", "unknown_field", 3, 18, "did you mean `doc`?"),
    ("unknown field of an output", "steps:\n  a:\n    transform: 1\n    output: {type: object, properties: {kind: {}}, additionalProperties: false}\n  b: {transform: \"${{ steps.a.output.knid }}\"}", "unknown_field", 5, 18, "did you mean `kind`?"),
    ("field of a counting map", "steps:\n  a:\n    map: {over: [1], steps: {b: {transform: 1}}}\noutput: ${{ steps.a.output.suceeded }}", "unknown_field", 4, 9, "did you mean `succeeded`?"),
    ("output schema without output", "output_schema: {type: object}\nsteps: {a: {transform: 1}}", "missing_key", 1, 1, "add `output`"),
    ("output schema that is none", "output_schema: {type: objekt}\nsteps: {a: {transform: 1}}\noutput: {}", "invalid_schema", 1, 23, ""),
    ("constant output that misses its schema", "steps: {a: {transform: 1}}\noutput_schema: {properties: {n: {minimum: 3}}}\noutput: {n: 2}", "type_mismatch", 3, 13, "3"),
    ("output that lacks a key", "steps: {a: {transform: 1}}\noutput_schema: {required: [n]}\noutput: {m: '${{ steps.a.output }}'}", "missing_key", 3, 1, "lacks `n`"),
    ("output with a key too many", "steps: {a: {transform: 1}}\noutput_schema: {properties: {note: true}, additionalProperties: false}\noutput: {noet: '${{ steps.a.output }}'}", "unknown_field", 3, 16, "did you mean `note`?"),
    ("output of another type", "steps: {a: {transform: 1, output: {type: string}}}\noutput_schema: {type: [object, integer]}\noutput: ${{ steps.a.output }}", "type_mismatch", 3, 9, "this is string"),
    ("count that a map does not keep", "steps:\n  a:\n    map: {over: [1], steps: {b: {transform: 1}}}\noutput: ${{ steps.a.output.skipped }}", "unknown_field", 4, 9, "`total`, `succeeded`, `failed`"),
    ("field of a collecting map", "steps:\n  a:\n    map: {over: [1], steps: {b: {transform: 1}}, collect: 1}\noutput: ${{ steps.a.output.total }}", "unknown_field", 4, 9, ""),
    ("unknown field of an item", "input: {type: object, properties: {parts: {type: array, items: {type: object, properties: {id: {}}, additionalProperties: false}}}}\nsteps:\n  a:\n    map: {over: \"${{ input.parts }}\", steps: {b: {transform: \"${{ item.idd }}\"}}}", "unknown_field", 4, 62, "did you mean `id`?"),
    ("a list that is none by its schema", "input: {type: object, properties: {n: {type: integer}}}\nsteps:\n  a:\n    map: {over: \"${{ input.n }}\", steps: {b: {transform: 1}}}", "type_mismatch", 4, 17, "needs a list"),
    ("a reference in defaults, once", "defaults: {llm: {model: \"${{ steps.none.output }}\"}}\nsteps: {a: {llm: {}}, b: {llm: {}}}", "unknown_step", 1, 25, "unknown step `none`"),
    // Edges
    ("needs of nothing", "steps:\n  fetch: {transform: 1}\n  b:\n    needs: [fech]\n    transform: 1", "unknown_step", 4, 13, "did you mean `fetch`?"),
    ("needs of itself", "steps:\n  b:\n    needs: [b]\n    transform: 1", "self_reference", 3, 13, "wait for itself"),
    ("needs twice", "steps:\n  a: {transform: 1}\n  b:\n    needs: [a, a]\n    transform: 1", "duplicate_element", 4, 5, "twice"),
    ("needs of a step outside", "steps:\n  a: {transform: 1}\n  m:\n    map: {over: [1], steps: {b: {needs: [a], transform: 1}}}", "unknown_step", 4, 42, "`needs` of the map"),
    ("a cycle by references", "steps:\n  a: {transform: \"${{ steps.c.output }}\"}\n  b: {transform: \"${{ steps.a.output }}\"}\n  c: {transform: \"${{ steps.b.output }}\"}", "cycle", 2, 3, "a → c → b → a"),
    ("a cycle through a map's body", "steps:\n  a: {needs: [m], transform: 1}\n  m:\n    map: {over: [1], steps: {b: {transform: \"${{ steps.a.output }}\"}}}", "cycle", 2, 3, "a → m → a"),
    ("a cycle inside a map", "steps:\n  m:\n    map:\n      over: [1]\n      steps:\n        x: {needs: [y], transform: 1}\n        y: {needs: [x], transform: 1}", "cycle", 6, 9, "x → y → x"),
    // Schemas
    ("an input schema that is none", "input: {type: objekt}\nsteps: {a: {transform: 1}}", "invalid_schema", 1, 15, ""),
    ("an output schema that is none", "steps:\n  a:\n    transform: 1\n    output: {properties: {n: {minimum: low}}}", "invalid_schema", 4, 40, ""),
    ("a schema that is text", "input: text\nsteps: {a: {transform: 1}}", "type_mismatch", 1, 8, "expected a mapping or true or false"),
];

fn problems(text: &str) -> Vec<Problem> {
    compiled(text).map(|c| c.definition.to_string()).expect_err("the file is wrong")
}

#[test]
fn one_mistake_is_one_problem_at_its_place_with_its_advice() {
    let mut wrong = Vec::new();
    for (what, text, code, line, column, says) in ROWS {
        let found = match compiled(&format!("{HEAD}{text}\n")) {
            Ok(_) => vec![],
            Err(problems) => problems,
        };
        let [problem] = found.as_slice() else {
            wrong.push(format!("{what}: {} problems: {found:#?}", found.len()));
            continue;
        };
        let span = problem.span.map(|s| (s.line - 2, s.column));
        if problem.code != *code || span != Some((*line, *column)) || !problem.to_string().contains(says) {
            wrong.push(format!("{what}: expected {code} at {line}:{column} `{says}`, found {} at {span:?}: {problem}", problem.code));
        }
    }
    assert!(wrong.is_empty(), "{} rows of {}:\n{}", wrong.len(), ROWS.len(), wrong.join("\n"));
}

#[test]
fn the_head_of_a_file_is_checked() {
    for (text, code, line, column, says) in [
        ("krowoc: v2\nname: test\nsteps: {a: {transform: 1}}\n", "unknown_value", 1, 9, "`krowoc: v1`, not `v2`"),
        ("name: test\nsteps: {a: {transform: 1}}\n", "missing_key", 1, 1, "the key `krowoc` is missing"),
        ("krowoc: v1\nname: test\n", "missing_key", 1, 1, "the key `steps` is missing"),
        ("krowoc: v1\nname: My Test\nsteps: {a: {transform: 1}}\n", "invalid_value", 2, 7, "small letters"),
        ("krowoc: v1\nname: 7\nsteps: {a: {transform: 1}}\n", "type_mismatch", 2, 7, "found `7`"),
        ("- krowoc\n", "type_mismatch", 1, 1, "expected a mapping, found a list"),
        ("krowoc\n", "type_mismatch", 1, 1, "expected a mapping, found the text `krowoc`"),
    ] {
        let found = problems(text);
        let [problem] = found.as_slice() else { panic!("{text}: {found:#?}") };
        assert_eq!((problem.code, problem.span.map(|s| (s.line, s.column))), (code, Some((line, column))), "{text}: {problem}");
        assert!(problem.to_string().contains(says), "{problem}");
    }
}

#[test]
fn ten_mistakes_are_ten_problems_in_the_order_of_the_file() {
    let text = r#"krowoc: v1
name: Ten Mistakes
timeout: soon
stepps: {}
steps:
  fetch:
    http: {url: "https://example.org", metod: GET}
  classify:
    lmm: {model: m}
  review:
    when: ${{ steps.fecth.output.ok }}
    map:
      over: ${{ steps.fetch.output.parts }}
      concurrency: 0
      steps:
        part: {transform: "${{ items.text }}"}
  left: {needs: [right], transform: 1}
  right: {needs: [left], transform: 1}
output: ${{ steps.part.output }}
"#;
    let found = problems(text);
    let codes: Vec<_> = found.iter().map(|p| (p.span.map_or(0, |s| s.line), p.code)).collect();
    let expected = [
        (2, "invalid_value"),
        (3, "invalid_value"),
        (4, "unknown_key"),
        (7, "unknown_key"),
        (9, "unknown_kind"),
        (11, "unknown_step"),
        (14, "out_of_range"),
        (16, "unknown_name"),
        (17, "cycle"),
        (19, "unknown_step"),
    ];
    assert_eq!(codes, expected, "{found:#?}");
}

#[test]
fn what_yaml_has_beyond_json_is_refused_at_its_place() {
    let alias_bomb = format!(
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n{}",
        ('b'..='j').fold(String::new(), |text, c| {
            let before = char::from(c as u8 - 1);
            format!("{text}{c}: &{c} [{}]\n", vec![format!("*{before}"); 10].join(","))
        })
    );
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let deep_block = (0..200).fold(String::new(), |text, level| format!("{text}{}a:\n", " ".repeat(level)));
    for (text, code, place, says) in [
        ("a: 1\nb: 2\na: 3\n", "duplicate_key", Some((3, 1)), "line 1, column 1"),
        ("steps:\n  x: {p: 1, 'p': 2}\n", "duplicate_key", Some((2, 13)), "line 2, column 7"),
        ("a: 1\n---\nb: 2\n", "several_documents", None, "one workflow per file"),
        ("a: [1\nb: 2\n", "yaml", None, ""),
        ("a:\n\t- b\n", "yaml", None, ""),
        ("a: *nowhere\n", "yaml", Some((1, 4)), ""),
        ("a: !custom 1\n", "yaml", None, "tag"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "yaml", None, "merge keys"),
        ("1: a\n", "invalid_key", Some((1, 1)), "\"1\""),
        ("true: a\n", "invalid_key", Some((1, 1)), "\"true\""),
        ("? [a]\n: b\n", "invalid_key", None, "can't be a key"),
        ("a: .nan\n", "yaml", Some((1, 4)), ""),
        ("", "empty", None, "krowoc: v1"),
        ("# nothing\n", "empty", None, "krowoc: v1"),
        (deep.as_str(), "too_deep", None, "100 levels"),
        (deep_block.as_str(), "too_deep", None, "100 levels"),
        (alias_bomb.as_str(), "yaml", None, ""),
    ] {
        let found = Source::parse("x.yaml", text).map(|s| s.json().to_string()).expect_err(text);
        let [problem] = found.as_slice() else { panic!("{text}: {found:#?}") };
        assert_eq!(problem.code, code, "{text}: {problem}");
        assert_eq!(problem.file.as_deref(), Some("x.yaml"));
        if place.is_some() {
            assert_eq!(problem.span.map(|s| (s.line, s.column)), place, "{text}: {problem}");
        }
        assert!(problem.to_string().contains(says), "{text}: {problem}");
    }
    let large = " ".repeat(Source::MAX_BYTES + 1);
    assert_eq!(Source::parse("x.yaml", &large).expect_err("too large")[0].code, "too_large");
}

#[test]
fn broken_yaml_is_shown_where_it_breaks() {
    for (text, line, column, shown, says) in [
        ("steps:\n  a:\n    transform: 1\n   b: 2\n", 4, 4, "b", "did not find expected key"),
        ("steps:\n  a:\n    transform: 1\n     b: 2\n", 4, 7, ":", "not allowed in this context"),
        ("name: x\ntitle: \"abc\nsteps: {}\n", 2, 8, "\"", "unclosed quote"),
        ("name: x\nsteps:\n\ta: 1\n", 3, 2, "a", "indent with spaces"),
        ("name: x\na: &\nb: 1\n", 2, 4, "&", "anchor"),
        ("name: x\na: *nowhere\nb: 1\n", 2, 4, "*", "unknown anchor"),
        ("name: x\na: [1, 2\nb: 3\n", 3, 2, ":", "illegal placement"),
        ("name: x\na: {b: 1}}\nc: 3\n", 2, 10, "}", "misplaced bracket"),
        ("name: x\na: [1\n", 2, 4, "[", "unclosed bracket"),
        ("name: x\na: b: c\n", 2, 5, ":", "not allowed in this context"),
        ("name: x\na: 1\na: 2\n", 3, 1, "a", "twice"),
        ("name: x\na: 1\n---\nb: 2\n", 4, 1, "", "more than one document"),
        ("steps: {a: {transform: ${{ input.x }}}}\n", 1, 25, "{", "an expression stands in quotes"),
        ("steps:\n  a: {transform: ${{ input.x, b: 1}\n", 2, 19, "{", "an expression stands in quotes"),
        ("steps:\n  a:\n    transform: \"${{ input.x }}\n", 3, 16, "\"", "unclosed quote"),
        ("# äöü\nname: äß\na: [ä, ö\nb: 3\n", 4, 2, ":", "illegal placement"),
        ("\u{feff}name: x\na: @b\n", 2, 4, "@", "unexpected character"),
    ] {
        let found = Source::parse("x.yaml", text).map(|s| s.json().to_string()).expect_err(text);
        let [problem] = found.as_slice() else { panic!("{text}: {found:#?}") };
        let span = problem.span.unwrap_or_else(|| panic!("{text}: {problem}"));
        assert_eq!((span.line, span.column), (line, column), "{text}: {problem}");
        assert_eq!(&text[span.offset..span.offset + span.length], shown, "{text}: {problem}");
        assert!(problem.to_string().contains(says), "{text}: {problem}");
        let before = &text[..span.offset];
        assert_eq!(before.matches('\n').count() as u32 + 1, line, "{text}: offset and line say the same");
    }
}

#[test]
fn every_duplicate_key_is_named() {
    let found = Source::parse("x.yaml", "a: 1\na: 2\nb: {c: 1, c: 2}\na: 3\n").expect_err("duplicates");
    let places: Vec<_> = found.iter().map(|p| (p.pointer.as_str(), p.span.map_or(0, |s| s.line))).collect();
    assert_eq!(places, [("/a", 2), ("/b/c", 3), ("/a", 4)]);
}

#[test]
fn text_that_is_not_utf8_is_refused_at_the_byte() {
    let found = Source::parse_bytes("x.yaml", b"a: 1\nb: \xc3\xa4\xff\n").expect_err("not UTF-8");
    assert_eq!(found[0].span.map(|s| (s.line, s.column, s.offset)), Some((2, 5, 10)));
    assert!(Source::parse_bytes("x.yaml", "a: ä\n".as_bytes()).is_ok());
}

#[test]
fn a_kind_can_not_take_a_word_of_the_language() {
    let source = Source::parse("x.yaml", "krowoc: v1\nname: t\nsteps: {a: {transform: 1}}").expect("YAML");
    let found = compile(&source, &kinds().with(Needs), &Prompts).map(|c| c.hash).expect_err("reserved");
    assert_eq!(found.iter().map(|p| p.code).collect::<Vec<_>>(), ["reserved_name"]);
}

#[test]
fn a_prompt_that_is_broken_keeps_its_own_place() {
    struct Broken;
    impl krowoc_engine::definition::PromptSource for Broken {
        fn resolve(&self, _: &str) -> Result<krowoc_engine::definition::PromptVersion, Problem> {
            let mut problem = Problem::new("invalid_prompt", "", "no front matter");
            problem.file = Some("prompts/greet.md".into());
            Err(problem)
        }
    }
    let source = Source::parse("x.yaml", "krowoc: v1\nname: t\nsteps: {a: {llm: {model: m, prompt: greet}}}").expect("YAML");
    let found = compile(&source, &kinds(), &Broken).map(|c| c.hash).expect_err("broken");
    assert_eq!(
        found.iter().map(|p| (p.file.as_deref(), p.pointer.as_str())).collect::<Vec<_>>(),
        [(Some("prompts/greet.md"), "/steps/a/llm/prompt")]
    );
}

proptest::proptest! {
    #[test]
    fn whatever_is_wrong_has_a_place_in_the_text(text in "[-?:,\\[\\]{}#&*!|>'\"%@` \t\n\u{feff}aä€$<]{0,40}") {
        for problem in Source::parse("x.yaml", &text).err().into_iter().flatten() {
            let shown = problem.span.map(|span| text.get(span.offset..span.offset + span.length));
            proptest::prop_assert!(shown != Some(None), "{text:?}: {problem:?}");
        }
    }
}
