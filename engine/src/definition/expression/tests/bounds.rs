//! What expressions may cost.

use super::{super::*, bindings, compile};
use serde_json::json;
use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

/// Each of these would run for minutes or take gigabytes if it were let.
#[test]
fn hostile_expressions_end_in_an_error_within_a_second() {
    let big: String = "x".repeat(1 << 20);
    let mut b = bindings();
    b.item("big", Payload::from(&json!({"text": big, "list": vec![json!([1, 2]); 10_000]})));
    let nested = |open: &str, close: &str, n: usize| format!("${{{{ {}1{} }}}}", open.repeat(n), close.repeat(n));
    let chain = |first: &str, link: &str, n: usize| format!("${{{{ {first}{} }}}}", link.repeat(n));
    for source in [
        "${{ 'x' * 1000000000 }}".to_owned(),
        "${{ 'x' * 1000 * 1000 * 1000 * 1000 }}".into(),
        "${{ ['x'] * 1000000000 }}".into(),
        "${{ [[[['x'] * 1000] * 1000] * 1000] * 1000 }}".into(),
        "${{ ([[[['x'] * 1000] * 1000] * 1000] * 1000) | string }}".into(),
        "${{ ([[[['x'] * 1000] * 1000] * 1000] * 1000) | json | length }}".into(),
        "${{ [[[[0] * 1000] * 1000] * 1000] == [[[[0] * 1000] * 1000] * 1000] }}".into(),
        "${{ range(1000000000) }}".into(),
        "${{ range(1000000) | list | length }}".into(),
        "${{ range(1000000) | join('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx') }}".into(),
        "${{ range(1000000) | map('string') | join }}".into(),
        "${{ range(100000) | map(attribute='a', default=big.text) | list }}".into(),
        "${{ range(100000) | map(attribute='a', default=big.list) | json }}".into(),
        "${{ [1] | batch(1000000000, big.text) | list }}".into(),
        "${{ [1] | slice(1000000000) | list }}".into(),
        "${{ [big.text, big.text, big.text, big.text] * 100 }}".into(),
        "${{ big.text | replace('x', big.text) }}".into(),
        "${{ big.text | replace('', big.text) }}".into(),
        "${{ '%1000000000d' | format(1) }}".into(),
        "${{ '%.1000000000f' | format(1.0) }}".into(),
        "${{ ('x\\n' * 100000) | indent(1000000) }}".into(),
        "${{ (range(1000000) | zip(range(1000000)) | list) | length }}".into(),
        "${{ range(1000000) | sort(reverse=true) | first }}".into(),
        "${{ range(1000000) | unique | list | length }}".into(),
        "${{ range(300000) | map('replace', '1', big.text) | list | length }}".into(),
        "${{ ([big.list] * 100) | json | length }}".into(),
        "${{ 2 ** 100000 }}".into(),
        "${{ 10 ** 38 * 10 ** 38 }}".into(),
        "${{ big.text ~ big.text ~ big.text ~ big.text ~ big.text ~ big.text ~ big.text ~ big.text ~ big.text ~ big.text ~ big.text \
             ~ big.text ~ big.text ~ big.text ~ big.text ~ big.text ~ big.text ~ big.text }}"
            .into(),
        "${{ big.text | chunks(1) | map('string') | list | string }}".into(),
        "${{ ('[' * 100000) | from_json }}".into(),
        "${{ ('[' * 126 ~ ']' * 126) | from_json | list | batch(1) | batch(1) | batch(1) | json }}".into(),
        nested("(", ")", 5_000),
        nested("[", "]", 5_000),
        nested("[", "]", 100),
        nested("not ", "", 3_000),
        nested("-", "", 10_000),
        chain("1", " + 1", 3_000),
        chain("1", " ~ 1", 3_000),
        chain("1", "|string", 1_500),
        chain("input", ".a", 5_000),
        chain("input", "[0]", 5_000),
        chain("1", " if 1 else 1", 1_000),
        chain("1", " is defined", 1_000),
        chain("1", " and 1", 2_000),
        chain("1", " < 1", 3_000),
        format!("${{{{ '{}' }}}}", "x".repeat(20_000)),
    ] {
        let start = cpu_time();
        if let Ok(template) = Template::compile(&json!(source), "") {
            let result = template.render(&b);
            let length = result.as_ref().map(|v| v.to_string().len());
            assert!(result.is_err(), "{}: {length:?}", shorten(&source));
        }
        let took = cpu_time() - start;
        assert!(took < Duration::from_secs(1), "{}: {took:?}", shorten(&source));
    }
}

#[test]
fn the_expressions_of_a_template_share_its_fuel() {
    let dear = "${{ range(100000) | list | length }}";
    assert!(compile(json!(dear)).render(&bindings()).is_ok());
    let (list, text) = (json!(vec![dear; 50]), json!(dear.repeat(50)));
    for many in [list, text] {
        let start = cpu_time();
        for error in [compile(many.clone()).render(&bindings()).err(), compile(many).render_payload(&bindings()).err()] {
            assert!(error.expect("too dear together").message.contains("too much work"));
        }
        assert!(cpu_time() - start < Duration::from_secs(2));
    }
    // What is cheap may be written as often as one likes, and so may what is only handed on.
    let cheap = json!(vec![json!(["${{ input.n + 1 }}", "${{ input.text }}"]); 5_000]);
    assert!(compile(cheap).render(&bindings()).is_ok());
}

#[test]
fn renders_share_a_budget_that_grows_with_the_items() {
    let mut b = bindings();
    let items: Vec<String> = (0..10_000).map(|n| format!("item {n} of a long list")).collect();
    b.item("long", Payload::from(&json!(items)));
    // A path that is followed through a large text costs something too.
    for (source, most) in [("${{ range(2000) | list | length }}", 40), ("${{ long[9999] }}", 100)] {
        let template = compile(json!(source));
        let renders = |budget: u64| {
            let mut budget = Budget(budget);
            let ended = (0..).find_map(|n| Some((n, template.render_within(&b, &mut budget).err()?))).expect("bounded");
            assert!(ended.1.message.ends_with("it takes too much work or memory, with the items before it"), "{}", ended.1);
            ended.0
        };
        let (few, more) = (renders(20_000), renders(40_000));
        assert!(few >= 3 && few < more && more <= most, "{source}: {few} {more}");
    }
    assert!(Budget::for_items(1).0 > limits::FUEL && Budget::for_items(1_000_000).0 > Budget::for_items(1).0);
}

#[test]
fn every_item_may_look_through_a_large_output_several_times() {
    let findings: Vec<Value> = (0..100).map(|n| json!({"id": n, "severity": n % 5, "text": "a finding. ".repeat(40)})).collect();
    let mut b = Bindings::default();
    b.step("review", Some(Payload::from(&json!({"findings": findings, "title": "Report"}))));
    let looks = [
        "${{ steps.review.output.findings | selectattr('severity', '>', 3) | list | length }}",
        "${{ steps.review.output.findings | map(attribute='text') | join(' ') | length }}",
        "${{ steps.review.output.findings | map(attribute='severity') | max }}",
        "${{ steps.review.output.title | upper }}",
    ];
    let collect = compile(json!(looks));
    let items = 200;
    let mut budget = Budget(Budget::for_items(items).0 - Budget::for_items(0).0);
    for item in 0..items {
        assert!(collect.render_payload_within(&b, &mut budget).is_ok(), "item {item}");
    }
}

/// The time that this thread has had a processor for: the machine may have other work. The clock's, where the system does not tell.
pub(in crate::definition) fn cpu_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|text| text.split_whitespace().next()?.parse().ok());
    nanos.map_or_else(|| START.elapsed(), Duration::from_nanos)
}

#[test]
fn what_is_nested_as_deeply_as_is_let_fits_a_small_stack() {
    let sources: Vec<String> = [
        ("", "not ", "1", ""),
        ("", "-", "1", ""),
        ("1", " + 1", "", ""),
        ("1", " ~ 1", "", ""),
        ("1", " and 1", "", ""),
        ("1", " < 1", "", ""),
        ("1", " if 1 else 1", "", ""),
        ("1", " is defined", "", ""),
        ("input", "|string", "", ""),
        ("input", ".a", "", ""),
        ("input", "[0]", "", ""),
        ("", "(", "1", ")"),
        ("", "[", "1", "]"),
        ("", "{1:", "1", "}"),
        ("", "input[", "1", "]"),
        ("", "1|default(", "1", ")"),
    ]
    .iter()
    .flat_map(|(first, link, last, close)| {
        // The deepest of each kind that is let, and some around it.
        (20..limits::MAX_NESTING + 2).step_by(3).map(move |n| format!("{first}{}{last}{}", link.repeat(n), close.repeat(n)))
    })
    .collect();
    let work = move || {
        let accepted = sources.iter().filter_map(|source| Template::compile(&json!(format!("${{{{ {source} }}}}")), "").ok());
        // Whatever comes of it, it comes without running out of stack.
        accepted.map(|template| drop(template.render(&bindings()))).count()
    };
    let accepted = std::thread::Builder::new().stack_size(1 << 20).spawn(work).expect("a thread").join().expect("no panic");
    assert!(accepted > 200, "{accepted}");
}

#[test]
fn a_whole_payload_is_handed_on_whatever_its_size() {
    let mut b = Bindings::default();
    b.input(Payload::from(&json!({"x": "y".repeat(limits::MAX_OUTPUT)})));
    assert!(compile(json!("${{ input }}")).render(&b).is_ok());
    assert!(compile(json!("${{ input }}")).render_payload(&b).is_ok());
    for source in [json!(["${{ input }}"]), json!("${{ input.x }}"), json!("${{ input | json }}"), json!("a${{ input.x }}")] {
        let error = compile(source.clone()).render(&b).expect_err("too large");
        assert!(error.message.contains("larger than 16 MiB"), "{source}: {error}");
        assert_eq!(compile(source).render_payload(&b).expect_err("too large"), error);
    }
}

#[test]
fn what_is_large_but_honest_is_rendered() {
    let sections: Vec<Value> = (0..5_000).map(|n| json!({"id": n, "text": "lorem ipsum ".repeat(20)})).collect();
    let mut b = Bindings::default();
    b.input(Payload::from(&json!({"text": "One sentence. ".repeat(100_000), "sections": sections})));
    for (source, length) in [
        ("${{ input.text | chunks(4000) | length }}", json!(351)),
        ("${{ input.sections | map(attribute='text') | join('\n') | length }}", json!(5_000 * 241 - 1)),
        ("${{ input.sections | selectattr('id', '>', 4989) | list | length }}", json!(10)),
        ("${{ (input.sections | json) == (input.sections | json) }}", json!(true)),
        ("${{ range(100000) | list | length }}", json!(100_000)),
    ] {
        assert_eq!(compile(json!(source)).render(&b), Ok(length), "{source}");
    }
    let long = (0..100).map(|n| format!("input.sections[{n}].text")).collect::<Vec<_>>().join(" ~ ");
    assert!(compile(json!(format!("${{{{ {long} }}}}"))).render(&b).is_ok());
    let table = (0..100).map(|n| format!("'k{n}': input.sections[{n}].text ~ '!'")).collect::<Vec<_>>().join(", ");
    assert!(compile(json!(format!("${{{{ {{{table}}} }}}}"))).render(&b).is_ok());
}
