//! What becomes of a right file.

use crate::kinds::compiled;
use krowoc_engine::{
    definition::{Action, BackoffKind, Compiled, Dag, Jitter, Join, MapPlan, Reads, Step, Tolerance, WaitPlan, restore},
    error::ErrorClass,
    id::{FrameIx, StepIx},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

const TRIAGE: &str = r#"
krowoc: v1
name: document-triage
description: Reads a document and says what to do
input:
  type: object
  required: [url]
  properties: {url: {type: string}, tenant: {type: string}}
  additionalProperties: false
timeout: 3d
defaults:
  llm: {model: sim/echo, temperature: 0}
  timeout: {attempt: 90s, idle: 20s}
  retry:
    attempts: 4
    backoff: {initial: 2s}
steps:
  fetch:
    http: {url: "${{ input.url }}"}
    output: {type: object, properties: {parts: {type: array, items: {type: object, properties: {id: {type: string}, text: {type: string}}}}}}
  classify:
    llm: {prompt: greet@prod, vars: {head: "${{ steps.fetch.output.parts[0].text }}"}, model: sim/other}
    output: {type: object, properties: {kind: {enum: [a, b]}}}
    retry: {on_lost: fail, errors: [timeout]}
  review:
    when: ${{ steps.classify.output.kind == 'a' }}
    map:
      over: ${{ steps.fetch.output.parts }}
      as: part
      key: ${{ part.id }}
      concurrency: 8
      tolerate: 10%
      steps:
        findings:
          llm: {prompt: greet@prod, vars: {text: "${{ part.text }}", kind: "${{ steps.classify.output.kind }}"}}
        words:
          needs: [findings]
          map:
            over: ${{ steps.findings.output }}
            steps:
              count: {transform: "${{ [item, part.id, input.tenant, run.id] }}"}
      collect: {found: "${{ steps.findings.output }}", by: "${{ part.id }}", kind: "${{ steps.classify.output.kind }}"}
  pause:
    needs: [review]
    join: all_done
    wait: {for: 30s}
  deliver:
    needs: [pause]
    join: none_failed
    allow_failure: true
    queue: out
    http: {method: POST, url: "https://x.test/", json: "${{ steps.review.output | default([]) }}"}
    timeout: {total: 1h}
output:
  kind: ${{ steps.classify.output.kind }}
  run: ${{ run.id }}
"#;

fn triage() -> Compiled {
    compiled(TRIAGE).expect("right")
}

fn step<'a>(dag: &'a Dag, name: &str) -> (StepIx, &'a Step) {
    let at = dag.steps.iter().position(|s| s.name == name).expect("the step");
    (StepIx(at as u16), &dag.steps[at])
}

fn map<'a>(dag: &'a Dag, name: &str) -> &'a MapPlan {
    match &step(dag, name).1.action {
        Action::Map(plan) => plan,
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_and_edges_follow_from_references_and_needs() {
    let dag = triage().dag;
    let names: Vec<_> = dag.steps.iter().map(|s| s.name.as_str()).collect();
    let expected = ["fetch", "classify", "review", "pause", "deliver", "review.findings", "review.words", "review.words.count"];
    assert_eq!(names, expected);
    let shape: Vec<_> = dag.steps.iter().map(|s| (s.frame.0, s.local, s.deps.clone(), s.successors.clone())).collect();
    let expected = [
        (0, 0, vec![], vec![1, 2]),
        (0, 1, vec![0], vec![2]),
        (0, 2, vec![0, 1], vec![3, 4]),
        (0, 3, vec![2], vec![4]),
        (0, 4, vec![2, 3], vec![]),
        (1, 0, vec![], vec![1]),
        (1, 1, vec![0], vec![]),
        (2, 0, vec![], vec![]),
    ];
    assert_eq!(shape, expected);
    let frames: Vec<_> = dag.frames.iter().map(|f| (f.owner, f.members.clone(), f.roots.clone())).collect();
    let ixs = |all: &[u16]| all.iter().map(|ix| StepIx(*ix)).collect::<Vec<_>>();
    let expected =
        [(None, ixs(&[0, 1, 2, 3, 4]), ixs(&[0])), (Some(StepIx(2)), ixs(&[5, 6]), ixs(&[5])), (Some(StepIx(6)), ixs(&[7]), ixs(&[7]))];
    assert_eq!(frames, expected);
    assert_eq!(dag.timeout, Some(Duration::from_secs(3 * 86_400)));
    assert!(dag.input.is_some() && dag.output.is_some());
}

#[test]
fn reads_name_exactly_what_expressions_look_at() {
    let dag = triage().dag;
    let reads = |input, run, steps: &[&str], items: &[&str]| {
        let ixs = |names: &[&str]| {
            let mut all: Vec<_> = names.iter().map(|n| step(&dag, n).0).collect();
            all.sort();
            all
        };
        Reads { input, run, steps: ixs(steps), items: ixs(items) }
    };
    let of = |name| step(&dag, name).1.reads.clone();
    assert_eq!(of("fetch"), reads(true, false, &[], &[]));
    assert_eq!(of("classify"), reads(false, false, &["fetch"], &[]));
    assert_eq!(of("review"), reads(false, false, &["classify", "fetch"], &["review"]));
    assert_eq!(map(&dag, "review").collect_reads, reads(false, false, &["review.findings", "classify"], &["review"]));
    assert_eq!(of("review.findings"), reads(false, false, &["classify"], &["review"]));
    assert_eq!(of("review.words"), reads(false, false, &["review.findings"], &[]));
    assert_eq!(map(&dag, "review.words").collect_reads, Reads::default());
    assert_eq!(of("review.words.count"), reads(true, true, &[], &["review", "review.words"]));
    assert_eq!(of("pause"), Reads::default());
    assert_eq!(of("deliver"), reads(false, false, &["review"], &[]));
    assert_eq!(dag.output_reads, reads(false, true, &["classify"], &[]));
}

#[test]
fn plans_policies_and_defaults_are_compiled() {
    let dag = triage().dag;
    let review = map(&dag, "review");
    assert_eq!((review.body, review.item.as_str(), review.concurrency), (FrameIx(1), "part", Some(8)));
    assert_eq!(review.tolerate, Tolerance::Part(0.1));
    assert!(review.key.is_some() && review.collect.is_some());
    let words = map(&dag, "review.words");
    assert_eq!((words.item.as_str(), words.concurrency, words.tolerate), ("item", None, Tolerance::Count(0)));
    assert!(matches!(step(&dag, "pause").1.action, Action::Wait(WaitPlan::For(_))));
    let (_, deliver) = step(&dag, "deliver");
    assert_eq!((deliver.join, deliver.allow_failure, deliver.queue.as_str()), (Join::NoneFailed, true, "out"));
    let seconds = |s| Some(Duration::from_secs(s));
    assert_eq!((deliver.timeout.attempt, deliver.timeout.idle, deliver.timeout.total), (seconds(90), seconds(20), seconds(3600)));
    let (_, classify) = step(&dag, "classify");
    assert_eq!((classify.join, classify.allow_failure, classify.queue.as_str()), (Join::AllSucceeded, false, "default"));
    assert_eq!(classify.retry.attempts, 4);
    assert_eq!(classify.retry.errors, [ErrorClass::Timeout]);
    assert!(classify.retry.fail_when_lost);
    let backoff = classify.retry.backoff;
    assert_eq!((backoff.kind, backoff.jitter), (BackoffKind::Exponential, Jitter::Full));
    assert_eq!((backoff.initial, backoff.max), (Duration::from_secs(2), Duration::from_secs(60)));
    let (_, count) = step(&dag, "review.words.count");
    assert_eq!((count.retry.attempts, count.timeout.attempt), (1, None), "defaults are for steps that call out");
    assert!(!count.retry.fail_when_lost);
}

#[test]
fn what_calls_nothing_outside_has_one_attempt_unless_it_says_otherwise_itself() {
    let steps = "a: {transform: 1}, b: {transform: 1, retry: {attempts: 2}}, c: {http: {url: 'http://x'}}";
    let dag = compiled(&format!("krowoc: v1\nname: t\ndefaults: {{retry: {{attempts: 5}}}}\nsteps: {{{steps}}}")).expect("right").dag;
    assert_eq!(["a", "b", "c"].map(|id| step(&dag, id).1.retry.attempts), [1, 2, 5]);
}

#[test]
fn an_attempt_that_calls_out_always_ends() {
    let dag = compiled("krowoc: v1\nname: t\nsteps: {a: {http: {url: 'http://x'}}, b: {transform: 1}}").expect("right").dag;
    assert_eq!(step(&dag, "a").1.timeout.attempt, Some(Duration::from_secs(600)));
    assert_eq!(step(&dag, "b").1.timeout.attempt, None);
}

#[test]
fn the_definition_says_everything_that_a_binary_could_change_its_mind_about() {
    let compiled = triage();
    let at = |pointer: &str| compiled.definition.pointer(pointer).cloned().unwrap_or(Value::Null);
    assert_eq!(at("/defaults"), Value::Null);
    assert_eq!(at("/steps/classify/llm/model"), json!("sim/other"));
    assert_eq!(at("/steps/classify/llm/temperature"), json!(0));
    assert_eq!(at("/steps/review/map/steps/findings/llm/model"), json!("sim/echo"));
    assert_eq!(at("/steps/fetch/timeout"), json!({"attempt": "90s", "idle": "20s"}));
    assert_eq!(at("/steps/fetch/retry/backoff"), json!({"kind": "exponential", "initial": "2s", "max": "60s", "jitter": "full"}));
    assert_eq!(at("/steps/fetch/join"), json!("all_succeeded"));
    assert_eq!(at("/steps/fetch/queue"), json!("default"));
    assert_eq!(at("/steps/review/map/tolerate"), json!("10%"));
    assert_eq!(compiled.prompts.keys().collect::<Vec<_>>(), ["greet@prod"]);
}

#[test]
fn a_stored_definition_makes_the_same_dag() {
    let compiled = triage();
    // As the database hands it back: through text.
    let stored: Value = serde_json::from_str(&compiled.definition.to_string()).expect("JSON");
    let restored = restore(&stored, compiled.prompts.clone()).expect("right");
    assert_eq!(format!("{restored:?}"), format!("{:?}", compiled.dag));
}

#[test]
fn kinds_of_another_worker_are_let_through() {
    let mut definition = compiled("krowoc: v1\nname: t\nsteps: {a: {transform: 1}}").expect("right").definition;
    let step = definition["steps"]["a"].as_object_mut().expect("a step");
    step.shift_remove("transform");
    step.insert("pdf".into(), json!({"file": "${{ input.file }}"}));
    let dag = restore(&definition, Default::default()).expect("right");
    assert!(matches!(&dag.steps[0].action, Action::Task { kind, .. } if kind == "pdf"));
    assert!(dag.steps[0].reads.input);
}

#[test]
fn a_stored_definition_that_is_broken_is_refused() {
    for broken in [json!(null), json!({}), json!({"krowoc": "v1", "name": "t", "steps": {"a": {}}})] {
        assert!(restore(&broken, Default::default()).is_err(), "{broken}");
    }
}

#[test]
fn the_hash_is_of_the_meaning_not_of_the_form() {
    let base = compiled(
        "krowoc: v1\nname: t\nsteps:\n  b: {transform: {x: 1, y: 2}}\n  a: {transform: \"${{ steps.b.output }}\"}\n  c: {transform: 3}",
    )
    .expect("right");
    let turned = "{\"steps\": {\"c\": {\"transform\": 3}, \"a\": {\"transform\": \"${{ steps.b.output }}\"}, \"b\": {\"transform\": {\"y\": 2, \"x\": 1}}}, \"name\": \"t\", \"krowoc\": \"v1\"}";
    let turned = compiled(turned).expect("right");
    assert_eq!(base.hash, turned.hash);
    let numbers = |c: &Compiled| c.dag.steps.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    assert_eq!(numbers(&base), numbers(&turned), "the same version numbers its steps alike");
    let spelled_out = compiled("krowoc: v1\nname: t\nsteps:\n  b: {transform: {x: 1, y: 2}, queue: default}\n  a: {transform: \"${{ steps.b.output }}\"}\n  c: {transform: 3}").expect("right");
    assert_eq!(base.hash, spelled_out.hash);
    let other = compiled(
        "krowoc: v1\nname: t\nsteps:\n  b: {transform: {x: 1, y: 3}}\n  a: {transform: \"${{ steps.b.output }}\"}\n  c: {transform: 3}",
    )
    .expect("right");
    assert_ne!(base.hash, other.hash);
}

#[test]
fn expressions_may_stand_for_values_of_any_type() {
    for steps in [
        "a: {llm: {model: m, temperature: '${{ input.t }}', max_tokens: '${{ input.n }}', messages: '${{ input.m }}'}}",
        "a: {llm: {model: m, messages: [{role: '${{ input.r }}', content: 'Hi ${{ input.name }}'}, '${{ input.last }}']}}",
        "a: {http: {url: '${{ input.base }}/x', method: '${{ input.method }}', expect: '${{ input.e }}', headers: '${{ input.h }}'}}",
        "a: {http: {url: 'http://x', expect: {from: '${{ input.a }}', to: 299}}}",
        "a: {transform: '${{ input }}'}",
        "a: {wait: {for: '${{ input.n }}s'}}",
        "a: {wait: {for: 90}}",
        "a: {wait: {until: '${{ input.at }}'}}",
        "a: {wait: {until: '2030-01-01T00:00:00+02:00'}}",
        "a: {map: {over: [1, '${{ input.x }}'], tolerate: 2, steps: {b: {transform: 1}}}}",
    ] {
        if let Err(problems) = compiled(&format!("krowoc: v1\nname: t\nsteps:\n  {steps}\n")) {
            panic!("{steps}: {problems:#?}");
        }
    }
}

#[test]
fn an_inner_step_hides_an_outer_one_of_the_same_name() {
    let dag = compiled(
        "krowoc: v1\nname: t\nsteps:\n  x: {transform: 1}\n  m: {map: {over: [1], steps: {x: {transform: 2}, y: {transform: '${{ steps.x.output }}'}}}}\n",
    )
    .expect("right")
    .dag;
    assert_eq!(step(&dag, "m.y").1.reads.steps, [step(&dag, "m.x").0]);
    assert!(step(&dag, "m").1.deps.is_empty());
}

#[test]
fn a_deep_reference_makes_the_outermost_map_wait() {
    let dag = compiled(
        "krowoc: v1\nname: t\nsteps:\n  x: {transform: 1}\n  m:\n    map:\n      over: [1]\n      as: a\n      steps:\n        n: {map: {over: [1], as: b, steps: {y: {transform: '${{ steps.x.output }}'}}}}\n",
    )
    .expect("right")
    .dag;
    assert_eq!(step(&dag, "m").1.deps, [step(&dag, "x").1.local]);
    assert!(step(&dag, "m.n").1.deps.is_empty());
    assert!(step(&dag, "m").1.reads.steps.is_empty(), "the map itself does not look at it");
}

#[test]
fn maps_nest_as_deep_as_the_limit_and_no_deeper() {
    let nested = |depth: usize| {
        let inner = (0..depth)
            .rev()
            .fold("{transform: 1}".to_owned(), |body, level| format!("{{map: {{over: [1], as: i{level}, steps: {{s{level}: {body}}}}}}}"));
        compiled(&format!("krowoc: v1\nname: t\nsteps: {{a: {inner}}}"))
    };
    assert_eq!(nested(Dag::MAX_DEPTH).expect("right").dag.frames.len(), Dag::MAX_DEPTH + 1);
    let problems = nested(Dag::MAX_DEPTH + 2).map(|c| c.hash).expect_err("too deep");
    assert_eq!(problems.iter().map(|p| p.code).collect::<Vec<_>>(), ["too_deep"]);
}

/// Steps that read from earlier ones only, written in any order.
fn workflows() -> impl Strategy<Value = (Vec<Vec<usize>>, Vec<usize>)> {
    prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..24).prop_flat_map(|steps| {
        let deps: Vec<Vec<usize>> =
            steps.iter().enumerate().map(|(at, deps)| if at == 0 { vec![] } else { deps.iter().map(|d| d.index(at)).collect() }).collect();
        let order: Vec<usize> = (0..deps.len()).collect();
        (Just(deps), Just(order).prop_shuffle())
    })
}

fn written(deps: &[Vec<usize>], order: &[usize]) -> String {
    let step = |at: &usize| {
        let reads: Vec<_> = deps[*at].iter().map(|d| format!("'${{{{ steps.s{d}.output }}}}'")).collect();
        format!("  s{at}: {{transform: [{}]}}\n", reads.join(", "))
    };
    format!("krowoc: v1\nname: t\nsteps:\n{}", order.iter().map(step).collect::<String>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_of_a_file_is_the_same_version((deps, order) in workflows()) {
        let sorted: Vec<usize> = (0..deps.len()).collect();
        let one = compiled(&written(&deps, &sorted)).expect("right");
        let two = compiled(&written(&deps, &order)).expect("right");
        prop_assert_eq!(one.hash, two.hash);
        prop_assert_eq!(format!("{:?}", one.dag), format!("{:?}", two.dag));
        for step in &one.dag.steps {
            prop_assert!(step.deps.iter().all(|d| *d < step.local), "each after those it waits for");
            let expected: std::collections::BTreeSet<_> = deps[step.id[1..].parse::<usize>().expect("a number")].iter().map(|d| format!("s{d}")).collect();
            let found: std::collections::BTreeSet<_> = step.deps.iter().map(|d| one.dag.steps[usize::from(*d)].id.clone()).collect();
            prop_assert_eq!(expected, found);
        }
    }

    #[test]
    fn no_text_panics(text in "[a-z:{}\\[\\]\"'$&*!|>?#, \n\t-]{0,80}") {
        let _ = compiled(&text);
        let _ = compiled(&format!("krowoc: v1\nname: t\nsteps:\n  a: {text}"));
    }
}
