//! The workflows that are measured. Every step but the first gets its predecessor's result by a bare reference, every map item reads its
//! item: nothing is left out that a real workflow does.

use super::{ground::Ground, noop};
use anyhow::bail;
use krowoc_engine::{
    Payload, VersionId,
    commands::StartRun,
    definition::{Problem, PromptSource, PromptVersion, Source, compile},
};
use serde_json::Value;
use std::fmt::Write;

/// `steps` steps in a row; each hands 200 bytes on.
pub fn chain(steps: usize) -> String {
    let mut text = String::from("krowoc: v1\nname: chain\nsteps:\n  s1:\n    noop:\n");
    for step in 2..=steps {
        // Writing to a string can't fail.
        let _ = writeln!(text, "  s{step}:\n    noop: ${{{{ steps.s{}.output }}}}", step - 1);
    }
    text
}

/// A map of `items` items whose results have about 200 bytes, collected in order, and a step that looks at the collected list.
pub fn fan(items: usize) -> String {
    // With the braces, the names and a number of some digits: 200 bytes.
    let filler = "x".repeat(noop::OUTPUT.len() - r#"{"item":1000,"text":""}"#.len());
    format!(
        "krowoc: v1\nname: fan\nsteps:\n  fan:\n    map:\n      over: ${{{{ range({items}) }}}}\n      as: n\n      steps:\n        one:\n          noop:\n            item: ${{{{ n }}}}\n            text: {filler}\n      collect: ${{{{ steps.one.output.item }}}}\n  join:\n    noop: ${{{{ steps.fan.output | sum }}}}\noutput: ${{{{ steps.join.output }}}}\n"
    )
}

/// A map over the input's documents, with a simulated call of `latency` for each.
pub fn calls(latency: &str) -> String {
    format!(
        "krowoc: v1\nname: calls\nsteps:\n  calls:\n    map:\n      over: ${{{{ input.documents }}}}\n      as: document\n      steps:\n        call:\n          timeout:\n            attempt: 1h\n            idle: 1h\n          llm:\n            model: sim/instant?latency={latency}\n            messages:\n              - role: user\n                content: ${{{{ document }}}}\n"
    )
}

/// A run as every work starts it.
pub fn run(version: VersionId) -> StartRun {
    let input = Payload::from_json_text(r#"{"topic":"benchmark","depth":3}"#);
    StartRun { version, input, idempotency_key: None, priority: 0, trigger: "bench".into() }
}

/// A run with an input of its own.
pub fn run_with(version: VersionId, input: &Value) -> StartRun {
    StartRun { input: Payload::from(input), ..run(version) }
}

/// Compiles and registers a workflow.
pub async fn register(ground: &Ground, text: &str) -> anyhow::Result<VersionId> {
    let compiled = Source::parse("bench.yaml", text).and_then(|source| compile(&source, &ground.engine.registry().kinds, &NoPrompts));
    match compiled {
        Ok(compiled) => Ok(ground.engine.register(&ground.scope, &compiled).await?.id),
        Err(problems) => bail!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

struct NoPrompts;

impl PromptSource for NoPrompts {
    fn resolve(&self, reference: &str) -> Result<PromptVersion, Problem> {
        Err(Problem::new("unknown_prompt", "", format!("no prompt `{reference}`: measured workflows have none")))
    }
}
