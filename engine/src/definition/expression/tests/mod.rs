//! The language by its examples; its bounds are in `bounds`.

mod bounds;

pub(in crate::definition) use bounds::cpu_time;

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn bindings() -> Bindings {
    let mut b = Bindings::default();
    let payload = |v: Value| Payload::from(&v);
    b.input(payload(
        json!({"doc_url": "https://x", "n": 3, "text": "one two. three", "none": null, "list": [3, 1, 2], "keys": {"b": 1, "a": 2}}),
    ));
    b.step("split", Some(payload(json!({"sections": [{"id": "s1", "text": "A"}, {"id": "s2", "text": "B"}], "a b": {"c": true}}))));
    b.step("classify", Some(payload(json!({"kind": "contract", "risk": 0.9}))));
    b.step("skipped", None);
    b.item("section", payload(json!({"id": "s7"})));
    b.run(RunFacts { id: "r-1".into(), trigger: "cli".into(), started_at: "2026-01-01T00:00:00Z".into(), attempt_generation: 1 });
    b
}

fn compile(value: Value) -> Template {
    Template::compile(&value, "/x").unwrap_or_else(|problems| panic!("{value}: {problems:?}"))
}

fn render(value: Value) -> Result<Value, String> {
    let template = compile(value);
    let rendered = template.render(&bindings()).map_err(|e| e.message);
    // Both ways of rendering are one language.
    let payload = template.render_payload(&bindings()).map(|p| p.parse::<Value>().expect("JSON")).map_err(|e| e.message);
    assert_eq!(rendered, payload);
    rendered
}

fn problem(source: &str) -> Problem {
    let mut problems = Template::compile(&json!(source), "/x").expect_err(source);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn expressions_have_the_values_that_the_language_promises() {
    for (source, expected) in [
        // types are kept
        ("${{ input.n }}", json!(3)),
        ("  ${{ input.n }}\n", json!(3)),
        ("${{ 1.0 }}", json!(1.0)),
        ("${{ 18446744073709551615 }}", json!(u64::MAX)),
        ("${{ -9223372036854775808 }}", json!(i64::MIN)),
        ("${{ input.none }}", json!(null)),
        ("${{ null }}", json!(null)),
        ("${{ [1, 'a', none, true] }}", json!([1, "a", null, true])),
        ("${{ {'z': 1, 'a': {'b': [input.n]}} }}", json!({"z": 1, "a": {"b": [3]}})),
        ("${{ (1, 2) }}", json!([1, 2])),
        ("${{ {} }}", json!({})),
        ("${{ 'a\\u0000b' }}", json!("a\u{0}b")),
        (r#"${{ "q\"\\" }}"#, json!("q\"\\")),
        // lookups
        ("${{ steps.split.output.sections[0].text }}", json!("A")),
        ("${{ steps['split'].output['sections'][-1]['id'] }}", json!("s2")),
        ("${{ steps.split.output['a b'].c }}", json!(true)),
        ("${{ steps.split.output.sections[input.n - 2].id }}", json!("s2")),
        ("${{ input.text[0] }}", json!("o")),
        ("${{ section.id }}", json!("s7")),
        ("${{ run.id ~ '/deliver' }}", json!("r-1/deliver")),
        ("${{ run.attempt_generation }}", json!(1)),
        ("${{ (steps.split.output).sections | length }}", json!(2)),
        ("${{ input.list[1:] }}", json!([1, 2])),
        ("${{ input.text[:3] }}", json!("one")),
        // operators, with their precedence
        ("${{ 1 + 2 * 3 }}", json!(7)),
        ("${{ (1 + 2) * 3 }}", json!(9)),
        ("${{ 10 - 2 - 3 }}", json!(5)),
        ("${{ 10 - (2 - 3) }}", json!(11)),
        ("${{ 2 ** 3 ** 2 }}", json!(64)),
        ("${{ -2 ** 2 }}", json!(4)),
        ("${{ -input.n | abs }}", json!(3)),
        ("${{ -(input.n | abs) }}", json!(-3)),
        ("${{ 7 // 2 + 7 % 4 }}", json!(6)),
        ("${{ 1 < 2 < 3 }}", json!(true)),
        ("${{ (1 < 2) == true }}", json!(true)),
        ("${{ 1 < 2 and not 2 < 1 or false }}", json!(true)),
        ("${{ not (true or true) and false }}", json!(false)),
        ("${{ steps.classify.output.kind in ['contract', 'complaint'] }}", json!(true)),
        ("${{ 'x' not in 'abc' }}", json!(true)),
        ("${{ 'a' ~ 1 ~ true ~ 1.0 ~ [1, 'b'] }}", json!("a1true1.0[1,\"b\"]")),
        ("${{ 'a' 'b' }}", json!("ab")),
        ("${{ [1] + [2] }}", json!([1, 2])),
        ("${{ [0] * 3 }}", json!([0, 0, 0])),
        ("${{ 'a' if input.n > 2 else 'b' }}", json!("a")),
        ("${{ 1 if false else 2 if false else 3 }}", json!(3)),
        ("${{ (1 if true else 2) + 1 }}", json!(2)),
        // filters, tests, functions
        ("${{ input.list | sort | join(', ') }}", json!("1, 2, 3")),
        ("${{ steps.split.output.sections | map(attribute='id') | join }}", json!("s1s2")),
        ("${{ steps.split.output.sections | join('+', attribute='text') }}", json!("A+B")),
        ("${{ input.keys | json }}", json!("{\"b\":1,\"a\":2}")),
        ("${{ {'h': '<a>'} | tojson }}", json!("{\"h\":\"<a>\"}")),
        ("${{ '{\"b\": [1.0]}' | from_json }}", json!({"b": [1.0]})),
        ("${{ 'a b' | split }}", json!(["a", "b"])),
        ("${{ input.text | words }}", json!(3)),
        ("${{ input.text | chunks(8) }}", json!(["one two.", "three"])),
        ("${{ 'Hello World' | slug }}", json!("hello-world")),
        ("${{ true | string }}", json!("true")),
        ("${{ range(3) }}", json!([0, 1, 2])),
        ("${{ range(5)[1:3] }}", json!([1, 2])),
        ("${{ dict(a=1, b=input.n) }}", json!({"a": 1, "b": 3})),
        ("${{ input.keys | items | list }}", json!([["b", 1], ["a", 2]])),
        ("${{ [1, 2, 3] | select('odd') | list }}", json!([1, 3])),
        ("${{ [1, 2, 3] | select('>', 1) | list }}", json!([2, 3])),
        ("${{ 3 is divisibleby(3) }}", json!(true)),
        ("${{ 3 is divisibleby 2 }}", json!(false)),
        ("${{ input.none is none }}", json!(true)),
        ("${{ '%s=%d' | format('a', 3) }}", json!("a=3")),
        // text
        ("n=${{ input.n }}!", json!("n=3!")),
        ("${{ input.n }}${{ input.n }}", json!("33")),
        ("${{ input.n }} ", json!(3)),
        ("x ${{ input.list }}", json!("x [3,1,2]")),
        ("$${{ input.n }}", json!("${{ input.n }}")),
        ("$${{ a }} ${{ input.n }}", json!("${{ a }} 3")),
        ("{{ input.n }} {% x %}", json!("{{ input.n }} {% x %}")),
    ] {
        assert_eq!(render(json!(source)), Ok(expected), "{source}");
    }
}

#[test]
fn absent_values_may_be_looked_into_replaced_and_asked_about() {
    for (source, expected) in [
        ("${{ steps.skipped.output.text | default('none') }}", json!("none")),
        ("${{ steps.skipped.output.a.b[0].c | default(1) }}", json!(1)),
        ("${{ steps.skipped.output | default(steps.skipped.output.x) | default('z') }}", json!("z")),
        ("${{ steps.skipped.output.x | default(steps.classify.output.kind) }}", json!("contract")),
        ("${{ steps.skipped.output is defined }}", json!(false)),
        ("${{ steps.skipped.output.a.b is undefined }}", json!(true)),
        ("${{ steps.classify.output.kind is defined }}", json!(true)),
        ("${{ input.missing.deeper | d('x') }}", json!("x")),
        ("${{ input.n.deeper | default('x') }}", json!("x")),
        ("${{ input.none.deeper | default('x') }}", json!("x")),
        ("${{ input.list[7] | default('x') }}", json!("x")),
        ("${{ steps.skipped.output.x if steps.skipped.output is defined else 'no' }}", json!("no")),
        ("${{ (steps.skipped.output.x if true else 1) | default('y') }}", json!("y")),
        ("${{ ('a' if false) | default('b') }}", json!("b")),
        ("${{ ([] | first) | default('empty') }}", json!("empty")),
        ("${{ ({}).a.b | default('x') }}", json!("x")),
        ("${{ steps.skipped.output is defined and steps.skipped.output.x > 1 }}", json!(false)),
        ("${{ '' | default('e', true) }}", json!("e")),
        ("note: ${{ steps.skipped.output.form.note | default('') }}", json!("note: ")),
    ] {
        assert_eq!(render(json!(source)), Ok(expected), "{source}");
    }
}

#[test]
fn any_other_use_of_what_is_absent_or_null_is_an_error_that_names_it() {
    for (source, reason) in [
        ("${{ steps.skipped.output }}", "`steps.skipped.output` is absent: step `skipped` has no output, it did not succeed"),
        ("${{ steps.skipped.output.text }}", "`steps.skipped.output.text` is absent: step `skipped` has no output"),
        ("a ${{ steps.skipped.output.text }}", "`steps.skipped.output.text` is absent"),
        ("${{ steps.skipped.output.text == 'a' }}", "`steps.skipped.output.text` is absent"),
        ("${{ 'a' != steps.skipped.output.text }}", "`steps.skipped.output.text` is absent"),
        ("${{ steps.skipped.output.text ~ 'a' }}", "`steps.skipped.output.text` is absent"),
        ("${{ not steps.skipped.output.ok }}", "`steps.skipped.output.ok` is absent"),
        ("${{ steps.skipped.output.ok and true }}", "`steps.skipped.output.ok` is absent"),
        ("${{ 1 if steps.skipped.output.ok else 2 }}", "`steps.skipped.output.ok` is absent"),
        ("${{ steps.skipped.output.list | length }}", "`steps.skipped.output.list` is absent"),
        ("${{ steps.skipped.output.list | join }}", "`steps.skipped.output.list` is absent"),
        ("${{ [steps.skipped.output.x] }}", "`steps.skipped.output.x` is absent"),
        ("${{ {'a': steps.skipped.output.x} }}", "`steps.skipped.output.x` is absent"),
        ("${{ range(steps.skipped.output.n) }}", "`steps.skipped.output.n` is absent"),
        ("${{ steps.skipped.output is none }}", "`steps.skipped.output` is absent"),
        ("${{ steps.skipped.output.x | default(steps.skipped.output.y) }}", "`steps.skipped.output.y` is absent"),
        ("${{ input.missing }}", "`input.missing` is absent: `input` is an object without `missing`"),
        ("${{ input.n.x }}", "`input.n` is a number without `x`"),
        ("${{ input.list[9].a }}", "`input.list` is a list without an item 9"),
        ("${{ steps.nowhere.output }}", "`steps` is an object without `nowhere`"),
        ("${{ input.list[input.n + 5] }}", "`input.list[8]` is absent"),
        ("${{ 'a' if false }}", "without `else`"),
        ("${{ ('a' if false) == 'a' }}", "without `else`"),
        ("${{ [] | first }}", "it has no value"),
        ("${{ [{}] | map(attribute='x') | list }}", "absent"),
        ("n: ${{ input.none }}", "null can't be put into a text"),
        ("${{ 'a' ~ input.none }}", "null can't be put into a text"),
        ("${{ [1, none] | join }}", "item 1: null"),
        ("${{ nope }}", "there is no `nope` here"),
        ("${{ inptu.n }}", "did you mean `input`?"),
        ("${{ nope.x | default(1) }}", "there is no `nope` here"),
        ("${{ nope is defined }}", "there is no `nope` here"),
        ("${{ 1 / 0 }}", "unable to calculate"),
        ("${{ 0.0 / 0.0 }}", ""),
        ("${{ 1e308 * 10.0 }}", "no JSON number"),
        ("${{ 18446744073709551615 * 4 }}", "64 bits"),
        ("${{ input.list | from_json }}", "string"),
        ("${{ '{' | from_json }}", "no JSON"),
        ("${{ 'a' | chunks(0) }}", "at least 1"),
        ("${{ range }}", "there is no `range` here"),
    ] {
        let error = compile(json!(source)).render(&bindings()).expect_err(source);
        assert!(error.message.contains(reason), "{source}: {}", error.message);
        assert_eq!(error.pointer, "/x");
        assert!(error.message.starts_with("`${{ "), "{}", error.message);
        render(json!(source)).expect_err("also as a payload");
    }
}

#[test]
fn broken_expressions_are_problems_at_their_string() {
    for (source, reason, help) in [
        ("${{ a", "no closing", None),
        ("${{ }}", "is empty", None),
        ("a ${{ 'b }}", "no closing", None),
        ("${{ a b }}", "unexpected", None),
        ("${{ 1 + }}", "unexpected", None),
        ("${{ 1e999 }}", "no number", None),
        ("${{ input.x | uper }}", "unknown filter `uper`", Some("did you mean `upper`?")),
        ("${{ input.x is definde }}", "unknown test `definde`", Some("did you mean `defined`?")),
        ("${{ rnge(3) }}", "unknown function `rnge`", Some("did you mean `range`?")),
        ("${{ now() }}", "unknown function `now`", None),
        ("${{ upper('a') }}", "unknown function `upper`", Some("write `value | upper`")),
        ("${{ input.x.upper() }}", "values have no methods", Some("write `value | upper`")),
        ("${{ input.x.up() }}", "values have no methods", None),
        ("${{ (input.x)(1) }}", "", None),
        ("${{ input | map('uper') }}", "unknown filter `uper`", Some("did you mean `upper`?")),
        ("${{ input | select('od') }}", "unknown test `od`", Some("did you mean `odd`?")),
        ("${{ input | selectattr('x', 'od') }}", "unknown test `od`", Some("did you mean `odd`?")),
        ("${{ input.x | __weigh }}", "unknown filter `__weigh`", None),
        ("${{ input.x | safe }}", "unknown filter `safe`", None),
        ("${{ debug() }}", "unknown function `debug`", None),
        ("${{ namespace() }}", "unknown function `namespace`", None),
        ("${{ {% if x %} }}", "unexpected", None),
    ] {
        let problem = problem(source);
        assert_eq!((problem.code, problem.pointer.as_str()), ("expression_syntax", "/x"));
        assert!(problem.message.contains(reason), "{source}: {}", problem.message);
        if let Some(help) = help {
            assert!(problem.help.as_deref().is_some_and(|h| h.contains(help)), "{source}: {:?}", problem.help);
        }
    }
}

#[test]
fn every_problem_of_a_value_is_reported_at_its_place() {
    let value =
        json!({"a/b": ["ok", "${{ }}"], "c~": {"d": "${{ x | nope }} ${{ y"}, "e": "${{ f | one | two }} ${{ g( }}", "${{ k }}": 1});
    let problems = Template::compile(&value, "/steps/s").expect_err("problems");
    let pointers: Vec<&str> = problems.iter().map(|p| p.pointer.as_str()).collect();
    assert_eq!(pointers, ["/steps/s/a~1b/1", "/steps/s/c~0/d", "/steps/s/e", "/steps/s/e", "/steps/s/${{ k }}"]);
}

#[test]
fn references_name_what_is_looked_up_as_far_as_it_is_constant() {
    let key = |k: &str| Segment::Key(k.into());
    let output = |step: &str, rest: &[Segment]| ("steps", [vec![key(step), key("output")], rest.to_vec()].concat());
    for (source, expected) in [
        ("${{ input }}", vec![("input", vec![])]),
        ("${{ 1 + 2 }}", vec![]),
        ("${{ null }}", vec![]),
        ("${{ range(input.n) }}", vec![("input", vec![key("n")])]),
        ("${{ steps.a.output.list[0]['k'] }}", {
            let (root, path) = output("a", &[key("list"), Segment::Index(0), key("k")]);
            vec![(root, path)]
        }),
        ("${{ steps['a b'].output[-1] }}", {
            let (root, path) = output("a b", &[Segment::Index(-1)]);
            vec![(root, path)]
        }),
        ("${{ input.list[section.n].x }}", vec![("section", vec![key("n")]), ("input", vec![key("list")])]),
        ("${{ input.list[1:section] }}", vec![("input", vec![key("list")]), ("section", vec![])]),
        ("${{ input.a | default(input.b) }}", vec![("input", vec![key("a")]), ("input", vec![key("b")])]),
        ("${{ input.a | default(input.b) | default(0) }}", vec![("input", vec![key("a")]), ("input", vec![key("b")])]),
        ("${{ input.a is defined }}", vec![("input", vec![key("a")])]),
        ("${{ input.a is none }}", vec![("input", vec![key("a")])]),
        ("${{ input.b if input.a else input.c }}", vec![("input", vec![key("a")]), ("input", vec![key("b")]), ("input", vec![key("c")])]),
        (
            "${{ input.a.x if input.a is defined else input.b }}",
            vec![("input", vec![key("a")]), ("input", vec![key("a"), key("x")]), ("input", vec![key("b")])],
        ),
        ("${{ input.a is defined and input.a.b > 1 }}", vec![("input", vec![key("a")]), ("input", vec![key("a"), key("b")])]),
        ("${{ input.a | map(attribute='x') | join(input.b) }}", vec![("input", vec![key("a")]), ("input", vec![key("b")])]),
        ("${{ {input.a: [input.b]} }}", vec![("input", vec![key("a")]), ("input", vec![key("b")])]),
        ("x ${{ input.a }} $${{ b }}", vec![("input", vec![key("a")])]),
        ("${{ input['a' ~ 'b'].c }}", vec![("input", vec![])]),
    ] {
        let template = compile(json!([source]));
        let found: Vec<_> = template.references().iter().map(|r| (r.root.as_str(), r.path.clone())).collect();
        assert_eq!(found, expected, "{source}");
        assert!(template.references().iter().all(|r| r.pointer == "/x/0"));
    }
}

#[test]
fn conditions_take_true_and_false_only() {
    for (source, expected) in [
        ("${{ input.n > 2 }}", Ok(true)),
        ("${{ input.n > 3 }}", Ok(false)),
        ("${{ input.n }}", Err("a number")),
        ("${{ 'true' }}", Err("a string")),
        ("true ", Err("a string")),
        ("${{ input.none }}", Err("null")),
        ("${{ input.list }}", Err("a list")),
        ("${{ input }}", Err("an object")),
        ("${{ steps.skipped.output.ok }}", Err("absent")),
    ] {
        match (compile(json!(source)).render_bool(&bindings()), expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{source}"),
            (Err(error), Err(reason)) => assert!(error.message.contains(reason), "{source}: {error}"),
            (got, _) => panic!("{source}: {got:?}"),
        }
    }
    assert_eq!(compile(json!(true)).render_bool(&Bindings::default()), Ok(true));
}

#[test]
fn bare_references_hand_payloads_on_untouched() {
    let text = r#"{ "b":1.50,  "a":[1e400, {"x": 12345678901234567890123}] }"#;
    let mut b = Bindings::default();
    b.input(Payload::from_json_text(text));
    b.step("s", Some(Payload::from_json_text(text)));
    b.item("item", Payload::from_json_text(text));
    for source in ["${{ input }}", "${{ steps.s.output }}", "${{steps['s'].output}}", " ${{ item }} "] {
        let payload = compile(json!(source)).render_payload(&b).expect("handed on");
        assert_eq!(payload.as_str().as_ptr(), b_text(&b, source), "{source}: the same allocation");
    }
    let part = compile(json!("${{ input.a[1] }}")).render_payload(&b).expect("a part");
    assert_eq!(part.as_str(), r#"{"x": 12345678901234567890123}"#);
    let object = compile(json!({"k": ["${{ input.b }}", 1, "é\n"], "e": "${{ item.a[1] }}"})).render_payload(&b).expect("an object");
    assert_eq!(object.as_str(), r#"{"k":[1.50,1,"é\n"],"e":{"x": 12345678901234567890123}}"#);
    // An expression that looks inside does parse, and says what it can't read.
    let error = compile(json!("${{ input.b + 1 }}")).render(&b).expect_err("1e400");
    assert!(error.message.contains("can't be read as JSON"), "{error}");
}

fn b_text(bindings: &Bindings, source: &str) -> *const u8 {
    let name = source.trim().trim_start_matches("${{").trim();
    let path = [Segment::Key("s".into()), Segment::Key("output".into())];
    let (root, path) = if name.starts_with("steps") { ("steps", &path[..]) } else { (name.trim_end_matches("}}").trim(), &[][..]) };
    match bindings.find(root, path) {
        Ok(bindings::Found::Whole(payload)) => payload.as_str().as_ptr(),
        _ => panic!("{root} is not bound"),
    }
}

#[test]
fn constants_are_not_rendered() {
    let value = json!({"a": [1, "x", {"b": null}], "c": "{{ d }}"});
    let template = compile(value.clone());
    assert!(template.is_constant() && template.references().is_empty());
    assert_eq!(template.render(&Bindings::default()), Ok(value));
    assert!(compile(json!("$${{ a }}")).is_constant());
    assert!(!compile(json!(["${{ 1 }}"])).is_constant());
    assert!(
        matches!(&compile(json!({"a": [1], "b": "${{ 1 }}"})).0.root, Node::Object(fields) if matches!(fields[0].1, Node::Constant(_)))
    );
}

#[test]
fn rendered_values_are_not_rendered_again() {
    let mut b = Bindings::default();
    b.input(Payload::from(&json!({"x": "${{ run.id }} {{ y }}", "f": "upper"})));
    assert_eq!(compile(json!("${{ input.x }}")).render(&b), Ok(json!("${{ run.id }} {{ y }}")));
    assert_eq!(compile(json!("a ${{ input.x }}")).render(&b), Ok(json!("a ${{ run.id }} {{ y }}")));
}

#[test]
fn later_bindings_replace_earlier_ones_and_leave_clones_alone() {
    let template = compile(json!("${{ [item.x, steps.a.output.x] }}"));
    let mut outer = Bindings::default();
    outer.item("item", Payload::from(&json!({"x": 1})));
    outer.step("a", Some(Payload::from(&json!({"x": 1}))));
    let mut inner = outer.clone();
    inner.item("item", Payload::from(&json!({"x": 2})));
    inner.step("a", Some(Payload::from(&json!({"x": 3}))));
    assert_eq!(template.render(&inner), Ok(json!([2, 3])));
    assert_eq!(template.render(&outer), Ok(json!([1, 1])));
}

#[test]
fn every_filter_test_and_function_that_is_offered_exists() {
    for filter in language::FILTERS {
        let error = language::LANGUAGE.compile_expression_owned(format!("1|{filter}")).expect("it compiles").eval(()).err();
        assert!(error.is_none_or(|e| e.kind() != minijinja::ErrorKind::UnknownFilter), "{filter}");
    }
    for test in language::TESTS {
        let error = language::LANGUAGE.compile_expression_owned(format!("1 is {test}()")).expect("it compiles").eval(()).err();
        assert!(error.is_none_or(|e| e.kind() != minijinja::ErrorKind::UnknownTest), "{test}");
    }
    let globals: Vec<&str> = language::LANGUAGE.globals().map(|(name, _)| name).collect();
    assert_eq!(globals, language::FUNCTIONS);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_source_panics(source in "[a-c0-9 .|()\\[\\]{}'\",:+*~<=-]{0,30}|(not |input|\\.a|\\||default\\(1\\)| if | else |is defined| ~ |\\[0\\]|1){0,12}") {
        if let Ok(template) = Template::compile(&json!(format!("${{{{ {source} }}}}")), "") {
            let _ = template.render(&bindings());
        }
    }

    #[test]
    fn any_payload_comes_through_any_way(text in any::<String>(), int in any::<i64>(), unsigned in any::<u64>(), float in any::<f64>()) {
        prop_assume!(float.is_finite());
        let mut b = Bindings::default();
        let payload = Payload::from(&json!({"v": [text, int, unsigned, float, {"z": null, "a": text}]}));
        let value: Value = payload.parse().expect("JSON");
        b.input(payload);
        for source in ["${{ input }}", "${{ {'v': input.v} }}", "${{ {'v': input.v | list} }}", "${{ input | json | from_json }}"] {
            prop_assert_eq!(compile(json!(source)).render(&b).expect("a value"), value.clone());
        }
    }
}
