//! Large files: what is linear stays so, and nothing overflows the stack. The sizes suit unoptimised builds.

use crate::kinds::compiled;
use krowoc_engine::definition::{Dag, Source, restore};
use std::fmt::Write;

fn file(steps: impl Iterator<Item = String>) -> String {
    steps.fold("krowoc: v1\nname: large\nsteps:\n".to_owned(), |text, step| text + &step)
}

#[test]
fn a_long_chain_compiles() {
    let n = 4_000;
    let chain = (0..n).map(|i| match i {
        0 => "  s0: {transform: 1}\n".to_owned(),
        i => format!("  s{i}: {{transform: \"${{{{ steps.s{}.output }}}}\"}}\n", i - 1),
    });
    let compiled = compiled(&file(chain)).expect("right");
    assert_eq!(compiled.dag.steps.len(), n);
    assert_eq!(compiled.dag.frames[0].roots.len(), 1);
    assert_eq!(compiled.dag.steps[n - 1].deps, [n as u16 - 2]);
    restore(&compiled.definition, compiled.prompts).expect("right");
}

#[test]
fn a_wide_graph_with_many_edges_compiles() {
    let (layers, width) = (20, 50);
    let mut text = String::new();
    for layer in 0..layers {
        for at in 0..width {
            let needs =
                if layer == 0 { String::new() } else { (0..width).map(|w| format!("l{}_{w}", layer - 1)).collect::<Vec<_>>().join(",") };
            writeln!(text, "  l{layer}_{at}: {{needs: [{needs}], transform: 1}}").expect("memory");
        }
    }
    let dag = compiled(&file(std::iter::once(text))).expect("right").dag;
    assert_eq!(dag.steps.iter().map(|s| s.deps.len()).sum::<usize>(), (layers - 1) * width * width);
    assert_eq!(dag.steps.iter().map(|s| s.successors.len()).sum::<usize>(), (layers - 1) * width * width);
}

#[test]
fn a_file_full_of_mistakes_names_each() {
    let n = 1_500;
    let problems = compiled(&file((0..n).map(|i| format!("  s{i}: {{transform: \"${{{{ steps.t{i}.output }}}}\"}}\n"))));
    assert_eq!(problems.map(|c| c.hash).expect_err("wrong").len(), n);
}

#[test]
fn more_steps_than_the_store_can_number_are_refused_once() {
    let problems =
        compiled(&file((0..=Dag::MAX_STEPS).map(|i| format!("  s{i}: {{transform: 1}}\n")))).map(|c| c.hash).expect_err("too many");
    assert_eq!(problems.iter().map(|p| p.code).collect::<Vec<_>>(), ["too_many_steps"]);
}

#[test]
fn the_deepest_document_that_is_parsed_compiles_and_is_restored() {
    let depth = Source::MAX_DEPTH - 3;
    let text = format!("{{krowoc: v1, name: deep, steps: {{a: {{transform: {}{}}}}}}}", "[".repeat(depth), "]".repeat(depth));
    let compiled = compiled(&text).expect("right");
    let stored = serde_json::from_str(&compiled.definition.to_string()).expect("no deeper than JSON parsers go");
    restore(&stored, compiled.prompts).expect("right");
}
