use super::{super::expression::tests::cpu_time, *};
use serde_json::json;
use std::time::Duration;

fn folder(files: &[(&str, &str)]) -> PromptFolder {
    PromptFolder::from_texts(files.iter().copied()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn prompt(text: &str) -> PromptVersion {
    folder(&[("p.md", text)]).resolve("p").expect("the prompt")
}

fn problems(text: &str) -> Vec<Problem> {
    PromptFolder::from_texts([("p.md", text)]).expect_err(text)
}

fn rendered(text: &str, vars: Value) -> Result<String, String> {
    prompt(text).render(&vars).map(|messages| messages.into_iter().map(|m| m.content).collect::<Vec<_>>().join("|"))
}

const FULL: &str = "---
name: triage/classify
version: 7
labels: [prod, latest]
description: Sorts documents
tags: [triage]
model: anthropic/claude-haiku-4-5
variables:
  head: string
  kinds: {type: array, items: {type: string}, default: [a, b]}
---

# System
You sort {{ kinds | join(', ') }}.

# USER

{{ head }}
## a heading of the text

# assistant
{\"kind\":
";

#[test]
fn a_file_is_read_with_all_that_it_says() {
    let prompts = folder(&[("ignored.md", FULL)]);
    let prompt = prompts.resolve("triage/classify").expect("it is there");
    let messages =
        [("system", "You sort {{ kinds | join(', ') }}."), ("user", "{{ head }}\n## a heading of the text"), ("assistant", "{\"kind\":")];
    let expected = PromptVersion {
        name: "triage/classify".into(),
        version: 7,
        labels: vec!["prod".into(), "latest".into()],
        messages: messages.map(|(role, content)| PromptMessage { role: role.into(), content: content.into() }).to_vec(),
        variables: BTreeMap::from([
            ("head".to_owned(), json!({"type": "string"})),
            ("kinds".to_owned(), json!({"type": "array", "items": {"type": "string"}, "default": ["a", "b"]})),
        ]),
        description: Some("Sorts documents".into()),
        tags: vec!["triage".into()],
        model: Some("anthropic/claude-haiku-4-5".into()),
    };
    assert_eq!(prompt, expected);
    let messages = prompt.render(&json!({"head": "H"})).expect("messages");
    assert_eq!(messages[0].content, "You sort a, b.");
    assert_eq!(messages[1].content, "H\n## a heading of the text");
}

#[test]
fn a_version_survives_its_storage() {
    let prompt = folder(&[("p.md", FULL)]).resolve("triage/classify").expect("it is there");
    let text = serde_json::to_string(&prompt).expect("JSON");
    assert_eq!(serde_json::from_str::<PromptVersion>(&text).expect("the same"), prompt);
    // Versions stored before there were these fields.
    let old = json!({"name": "a", "version": 1, "labels": [], "messages": [], "variables": {}});
    assert_eq!(serde_json::from_value::<PromptVersion>(old).expect("read").model, None);
}

#[test]
fn without_front_matter_or_sections_a_file_is_one_user_message_named_by_its_path() {
    let prompts = folder(&[("a/b/greet.md", "Hello.\r\nYou there.\r\n"), ("c.d.md", "---\n---\nx")]);
    let prompt = prompts.resolve("a/b/greet@1").expect("it is there");
    assert_eq!((prompt.version, prompt.messages.len()), (1, 1));
    assert_eq!(prompt.messages[0], PromptMessage { role: "user".into(), content: "Hello.\nYou there.".into() });
    assert!(prompts.resolve("c.d").is_ok());
    assert_eq!(prompts.versions().count(), 2);
}

#[test]
fn references_name_a_version_a_label_or_the_highest_version() {
    let version = |version: u32, labels: &str| format!("---\nname: s\nversion: {version}\nlabels: {labels}\n---\nv{version}");
    let files = [("s.md", version(1, "[old]")), ("s.v10.md", version(10, "[]")), ("s.v2.md", version(2, "[prod, 2b]"))];
    let prompts = PromptFolder::from_texts(files).expect("prompts");
    for (reference, version) in [("s", 10), ("s@1", 1), ("s@2", 2), ("s@10", 10), ("s@old", 1), ("s@prod", 2), ("s@2b", 2)] {
        assert_eq!(prompts.resolve(reference).expect(reference).version, version, "{reference}");
    }
    for (reference, help) in [
        ("t/summary", "there are: `s`"),
        ("ss", "did you mean `s`?"),
        ("s@3", "it has versions 1, 2, 10 and labels old, prod, 2b"),
        ("s@prd", "did you mean `s@prod`?"),
        ("s@", "it has versions"),
        ("", "there are: `s`"),
        ("s@99999999999", "it has versions"),
    ] {
        let problem = prompts.resolve(reference).expect_err(reference);
        assert_eq!((problem.code, problem.pointer.as_str()), ("unknown_prompt", ""));
        assert!(problem.help.as_deref().is_some_and(|h| h.contains(help)), "{reference}: {problem:?}");
    }
}

#[test]
fn the_same_version_or_label_twice_is_a_problem() {
    let files = [("a.md", "---\nname: x\nlabels: [l, m]\n---\n1"), ("b.md", "---\nname: x\nlabels: [m]\n---\n2")];
    let problems = PromptFolder::from_texts(files).expect_err("duplicates");
    let found: Vec<_> = problems.iter().map(|p| (p.code, p.file.as_deref(), p.span.map(|s| s.line))).collect();
    assert_eq!(found, [("duplicate_prompt", Some("b.md"), Some(1)), ("duplicate_label", Some("b.md"), Some(3))]);
    assert!(problems[0].message.contains("a.md"), "{problems:?}");
    let twice = PromptFolder::from_texts([("a.md", "---\nlabels: [m, m]\n---\n1")]).expect_err("twice");
    assert_eq!(twice[0].code, "duplicate_label");
}

#[test]
fn a_file_with_problems_keeps_nobody_from_the_others() {
    let (sound, broken) = ("---\nname: x\nlabels: [prod]\n---\n1", "---\nname: x\nversion: 2\nlabels: [next]\n---\n{{ y }}");
    let files = [("a.md", sound), ("b.md", broken), ("c.md", "c"), ("d.md", "---\nunclosed")];
    let (prompts, problems) = PromptFolder::sound_of_texts(files);
    let found: Vec<_> = problems.iter().map(|p| (p.code, p.file.as_deref())).collect();
    assert_eq!(found, [("undeclared_variable", Some("b.md")), ("prompt_syntax", Some("d.md"))]);
    for sound in ["x@1", "x@prod", "c"] {
        assert!(prompts.resolve(sound).is_ok(), "{sound}");
    }
    // `x` alone is the highest version, which is the broken one; what `x@3` is can't be told either.
    for broken in ["x", "x@2", "x@next", "x@3", "d", "d@1"] {
        let problem = prompts.resolve(broken).expect_err(broken);
        assert_eq!(problem.code, "broken_prompt", "{broken}");
        assert!(problem.message.contains(if broken.starts_with('x') { "b.md" } else { "d.md" }), "{problem}");
    }
    assert_eq!(prompts.resolve("y").expect_err("not there").code, "unknown_prompt");
    let (prompts, _) = PromptFolder::sound_of_texts([("a.md", sound), ("b.md", sound)]);
    for doubtful in ["x", "x@1", "x@prod"] {
        assert_eq!(prompts.resolve(doubtful).expect_err("of two").code, "broken_prompt", "{doubtful}");
    }
}

#[test]
fn the_messages_of_a_prompt_share_its_fuel() {
    let dear = "# user\n{% for n in range(10000) %}{% if n == 5 %}x{% endif %}{% endfor %}\n";
    let few = rendered(dear, json!({}));
    assert!(few.is_ok(), "{few:?}");
    let many = rendered(&dear.repeat(30), json!({})).expect_err("too dear together");
    assert!(many.contains("too much work"), "{many}");
}

#[test]
fn problems_say_what_where_and_what_to_do() {
    for (text, code, line, column, message, help) in [
        ("---\nname: a\n", "prompt_syntax", 1, 1, "not closed", None),
        ("---\nnam: a\n---\nx", "prompt_syntax", 2, 1, "nam", None),
        ("---\nversion: x\n---\nx", "prompt_syntax", 2, 10, "", None),
        ("---\nversion: -1\n---\nx", "prompt_syntax", 2, 10, "", None),
        ("---\nname: a\nname: b\n---\nx", "prompt_syntax", 3, 1, "uplicate", None),
        ("---\nname: a b\n---\nx", "prompt_syntax", 2, 7, "no name of a prompt", None),
        ("---\nname: a@b\n---\nx", "prompt_syntax", 2, 7, "no name of a prompt", None),
        ("---\nname: a//b\n---\nx", "prompt_syntax", 2, 7, "no name of a prompt", None),
        ("---\nlabels: [ok, '7']\n---\nx", "prompt_syntax", 2, 14, "is no label", None),
        ("---\nvariables:\n  a b: string\n---\nx", "prompt_syntax", 3, 8, "`a b` can't be", None),
        ("---\nvariables:\n  loop: string\n---\nx", "prompt_syntax", 3, 9, "`loop` can't be", None),
        ("---\nvariables:\n  a: strin\n---\n{{ a }}", "invalid_schema", 3, 6, "the variable `a`", None),
        (
            "---\nvariables:\n  head: string\n---\none\n two {{ haed }}",
            "undeclared_variable",
            6,
            9,
            "`haed` is not declared",
            Some("did you mean `head`?"),
        ),
        ("{{ x }}", "undeclared_variable", 1, 4, "`x` is not declared", Some("declare it in the front matter")),
        ("{{ loop.index }}", "undeclared_variable", 1, 4, "`loop`", None),
        (
            "---\nvariables: {d: {type: object, properties: {title: {}}, additionalProperties: false}}\n---\n{{ d.titel }}",
            "unknown_property",
            4,
            4,
            "`d`",
            Some("did you mean `title`?"),
        ),
        ("a\n{% if %}", "prompt_syntax", 2, 7, "", None),
        ("a\nb {{ 'x' | uper }}", "prompt_syntax", 2, 12, "unknown filter `uper`", Some("did you mean `upper`?")),
        ("{% include 'x' %}", "prompt_syntax", 1, 4, "`include` can't be used", Some("there are")),
        ("{% macro m() %}{% endmacro %}", "prompt_syntax", 1, 4, "`macro` can't be used", None),
        ("{% import 'x' as y %}", "prompt_syntax", 1, 4, "`import`", None),
        ("{% extends 'x' %}", "prompt_syntax", 1, 4, "`extends`", None),
        ("{% block b %}{% endblock %}", "prompt_syntax", 1, 4, "`block`", None),
        ("{% autoescape true %}{% endautoescape %}", "prompt_syntax", 1, 4, "`autoescape`", None),
        ("{% for a in [1] recursive %}{{ a }}{% endfor %}", "prompt_syntax", 1, 4, "recursive", None),
        ("hello\n# user\nx", "prompt_syntax", 1, 1, "before the first section", None),
        ("# system\n\n# user\nx", "prompt_syntax", 1, 1, "the system message is empty", None),
        ("---\nname: a\n---\n", "prompt_syntax", 4, 1, "the user message is empty", None),
        ("", "prompt_syntax", 1, 1, "empty", None),
        ("{{ 'abc", "prompt_syntax", 1, 1, "", None),
    ] {
        let problems = problems(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:#?}");
        let problem = &problems[0];
        let span = problem.span.expect("located");
        assert_eq!((problem.code, problem.file.as_deref()), (code, Some("p.md")), "{text}: {problem:?}");
        assert!(problem.message.contains(message), "{text}: {problem:?}");
        assert_eq!(span.line, line, "{text}: {problem:?}");
        if !message.is_empty() {
            assert_eq!(span.column, column, "{text}: {problem:?}");
        }
        if let Some(help) = help {
            assert!(problem.help.as_deref().is_some_and(|h| h.contains(help)), "{text}: {problem:?}");
        }
    }
}

#[test]
fn every_problem_of_every_file_is_reported() {
    let files = [("a.md", "{{ x }} {{ y }}"), ("b.md", "---\nlabels: ['1']\nname: a b\n---\n{{ z | nope }}"), ("c.md", "fine")];
    let problems = PromptFolder::from_texts(files).expect_err("problems");
    let files: Vec<_> = problems.iter().filter_map(|p| p.file.as_deref()).collect();
    assert_eq!(files, ["a.md", "a.md", "b.md", "b.md", "b.md"]);
}

#[test]
fn templates_have_the_values_that_jinja_promises() {
    let front = "---\nvariables:\n  s: string\n  n: number\n  l: array\n  o: object\n  z: {}\n---\n";
    let vars = || json!({"s": "a{{ n }}<b>", "n": 1.0, "l": [1, 2, 3], "o": {"k": "v", "b": [true]}, "z": null});
    for (body, expected) in [
        ("{{ s }}", "a{{ n }}<b>"),
        ("{{ n }} {{ l }} {{ o }} {{ o.b[0] }}", "1.0 [1,2,3] {\"k\":\"v\",\"b\":[true]} true"),
        ("{{ s ~ l }}", "a{{ n }}<b>[1,2,3]"),
        ("{% for x in l %}{{ loop.index }}:{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}", "1:1, 2:2, 3:3"),
        ("{% for k, v in o | items %}{{ k }}={{ v }};{% endfor %}", "k=v;b=[true];"),
        ("{% for x in l if x > 1 %}{{ x }}{% else %}none{% endfor %}", "23"),
        ("{% for x in [] %}{{ x }}{% else %}none{% endfor %}", "none"),
        ("{% for x in l %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "1"),
        ("{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}", "aba"),
        ("{% if n > 2 %}big{% elif n > 0 %}small{% else %}none{% endif %}", "small"),
        ("{% set t = s | upper %}{{ t }}", "A{{ N }}<B>"),
        ("{% set a, b = 1, 2 %}{{ a }}{{ b }}", "12"),
        ("{% set t | upper %}x{{ n }}{% endset %}{{ t }}", "X1.0"),
        ("{% filter upper | replace('A', 'b') %}aa{% endfilter %}", "bb"),
        ("{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}", "3"),
        ("{% if z is none %}no{% endif %}", "no"),
        ("{% raw %}{{ s }}{% endraw %}", "{{ s }}"),
        ("a {# a remark #}b", "a b"),
        ("one\n{% if true %}\n  two\n{% endif %}\nthree", "one\n  two\nthree"),
        ("\"q\\n\" \\ ${{ s }}", "\"q\\n\" \\ $a{{ n }}<b>"),
        ("{{ 'a' if n > 0 else 'b' }}", "a"),
        ("{{ o.missing | default('-') }}", "-"),
        ("{{ '<b>' }}", "<b>"),
    ] {
        assert_eq!(rendered(&format!("{front}{body}"), vars()), Ok(expected.to_owned()), "{body}");
    }
    for (body, reason) in [
        ("{{ z }}", "`z` is null"),
        ("{{ o.missing }}", "`o.missing` is absent"),
        ("{{ o.missing.more }}", "`o.missing.more` is absent"),
        ("{% for x in o.missing %}{% endfor %}x", "`o.missing` is absent"),
        ("{% if o.missing %}x{% endif %}", "`o.missing` is absent"),
        ("{{ n / 0 }}", "unable to calculate"),
        ("{% if false %}{% set t = 1 %}{% endif %}{{ s }}{{ l | from_json }}", "not a string"),
    ] {
        let error = rendered(&format!("{front}{body}"), vars()).expect_err(body);
        assert!(error.contains(reason) && error.starts_with("prompt `p@1`: message 1 (user)"), "{body}: {error}");
    }
}

#[test]
fn variables_are_checked_and_none_may_be_missing_or_unknown() {
    let text = "---\nvariables:\n  head: {type: string, minLength: 2}\n  list: {type: array, items: {type: integer}, default: []}\n---\n{{ head }}{{ list }}";
    assert_eq!(rendered(text, json!({"head": "ab"})), Ok("ab[]".into()));
    for (vars, reason) in [
        (json!({}), "the variable `head` is missing"),
        (json!({"head": 1}), "the variable `head`: must be a string, not an integer"),
        (json!({"head": "a"}), "the variable `head`: \"a\" is shorter"),
        (json!({"head": "ab", "list": [1, "2"]}), "the variable `list` at /1: must be an integer"),
        (json!({"head": "ab", "haed": 1}), "no variable `haed`; did you mean `head`?"),
        (json!([]), "must be an object"),
    ] {
        let error = rendered(text, vars).expect_err(reason);
        assert!(error.contains(reason) && error.contains("prompt `p@1`"), "{error}");
    }
}

#[test]
fn hostile_prompts_end_in_an_error_within_a_second() {
    let loops = |n: usize| format!("{}x{}", "{% for a in range(1000) %}".repeat(n), "{% endfor %}".repeat(n));
    let doubling = format!("{{% set x = ['aaaaaaaa'] %}}{}{{{{ x }}}}", "{% set x = [x, x] %}".repeat(40));
    let text_doubling = format!("{{% set x = 'aaaaaaaa' %}}{}{{{{ x }}}}", "{% set x = x ~ x %}".repeat(40));
    for body in [
        loops(4),
        doubling,
        text_doubling,
        "{% for a in range(1000000) %}{{ big }}{% endfor %}".into(),
        "{% for a in range(1000000) %}{% for b in range(1000000) %}{% endfor %}{% endfor %}".into(),
        "{% set x %}{% for a in range(1000000) %}{{ big }}{% endfor %}{% endset %}y".into(),
        "{{ 'x' * 1000000000 }}".into(),
        format!("{}x{}", "{% if true %}".repeat(2_000), "{% endif %}".repeat(2_000)),
        format!("{{% if false %}}{}{{% endif %}}", "{% elif false %}".repeat(2_000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(2_000), ")".repeat(2_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(5_000)),
        "x".repeat((1 << 20) + 1),
        "{{ big }}".repeat(2_000),
    ] {
        let start = cpu_time();
        let text = format!("---\nvariables: {{big: {{default: {:?}}}}}\n---\n{body}", "y".repeat(20_000));
        if let Ok(folder) = PromptFolder::from_texts([("p.md", text)]) {
            let result = folder.resolve("p").expect("it is there").render(&json!({}));
            assert!(result.is_err(), "{}", &body[..body.len().min(80)]);
        }
        let took = cpu_time() - start;
        assert!(took < Duration::from_secs(1), "{}: {took:?}", &body[..body.len().min(80)]);
    }
}

#[test]
fn folders_are_read_from_disk() {
    let root = std::env::temp_dir().join(format!("krowoc-prompts-{}", std::process::id()));
    std::fs::create_dir_all(root.join("triage/.hidden")).expect("a folder");
    let write = |path: &str, bytes: &[u8]| std::fs::write(root.join(path), bytes).expect("written");
    write("triage/classify.md", b"Hello");
    write("triage/notes.txt", b"{{ nothing }}");
    write("triage/.hidden/x.md", b"{{ nothing }}");
    let read = PromptFolder::read(&root);
    write("broken.md", b"a\n\xff\xfe");
    let broken = PromptFolder::read(&root);
    std::fs::remove_dir_all(&root).expect("removed");

    let names: Vec<String> = read.expect("prompts").versions().map(|p| p.name.clone()).collect();
    assert_eq!(names, ["triage/classify"]);
    let problems = broken.expect_err("not UTF-8");
    assert_eq!((problems.len(), problems[0].code), (1, "invalid_utf8"));
    assert_eq!(problems[0].span.map(|s| (s.line, s.column)), Some((2, 1)));
    assert!(problems[0].file.as_deref().is_some_and(|file| file.ends_with("broken.md")));
    assert_eq!(PromptFolder::read(&root).expect("a folder that is not there").versions().count(), 0);
}
