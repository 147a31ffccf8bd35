//! Validation and compilation of a parsed document.

use super::{
    Dag, Problem, PromptSource, PromptVersion, Source,
    assemble::{Defects, assemble},
    check::Check,
    defaults,
    digest::digest,
    explain::{self, Finding},
    language_schema, pointer,
    structure::{self, Task},
};
use crate::executor::StepKinds;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A valid workflow.
#[derive(Debug)]
pub struct Compiled {
    /// Ready to run.
    pub dag: Arc<Dag>,
    /// The document as JSON with every default written out, so that no later binary reads it otherwise; [`restore`] makes the
    /// same DAG of it.
    pub definition: Value,
    /// The prompts it names, by reference.
    pub prompts: BTreeMap<String, PromptVersion>,
    /// blake3 over definition and prompts, in a canonical form (key order and formatting do not matter).
    pub hash: [u8; 32],
}

/// Validates and compiles; every problem at once, located, in the order of the file.
pub fn compile(source: &Source, kinds: &StepKinds, prompts: &dyn PromptSource) -> Result<Compiled, Vec<Problem>> {
    if let Some(kind) = kinds.iter().find(|k| structure::COMMON.contains(&k.name()) || structure::OWN_KINDS.contains(&k.name())) {
        let message = format!("a step kind can't be called `{}`: the language has that word already", kind.name());
        return Err(vec![Problem::new("reserved_name", "", message)]);
    }
    let mut definition = source.json().clone();
    defaults::merge_kinds(&mut definition);
    let mut findings = schema_findings(&definition, kinds);
    leave_out_wrong_defaults(&mut definition, &findings);
    let structure = structure::settle(&mut definition, kinds);
    findings.extend(structure.findings);
    let mut pinned = BTreeMap::new();
    let said = places(&findings);
    check_kinds(&definition, &structure.tasks, kinds, &said, prompts, &mut pinned, &mut findings);
    match assemble(&definition, Arc::new(pinned.clone())) {
        Ok(dag) if findings.is_empty() => match digest(&definition, &pinned) {
            Ok(hash) => return Ok(Compiled { dag: Arc::new(dag), definition, prompts: pinned, hash }),
            Err(e) => findings.push(about_value(Problem::new("internal", "", format!("the definition has no canonical form: {e}")))),
        },
        Ok(_) => {}
        Err(defects) => findings.extend(remaining(defects, &said)),
    }
    Err(located(findings, source))
}

/// Compiles what [`compile`] accepted once, from the database. Kinds this process does not know are let through: another worker
/// has them.
pub fn restore(definition: &Value, prompts: BTreeMap<String, PromptVersion>) -> Result<Dag, Vec<Problem>> {
    assemble(definition, Arc::new(prompts)).map_err(|Defects { shape, meaning, about_keys }| [shape, meaning, about_keys].concat())
}

fn about_value(problem: Problem) -> Finding {
    Finding { problem, about_key: false }
}

/// What the language's schema says. A step kind whose own schema is none is a fault of the program, not of the file.
fn schema_findings(definition: &Value, kinds: &StepKinds) -> Vec<Finding> {
    let schema = language_schema::checked_schema(kinds);
    match jsonschema::draft202012::new(&schema) {
        Ok(validator) => explain::findings(&validator, &schema, definition),
        Err(e) => vec![about_value(Problem::new("internal", "", format!("the schema of a step kind is no JSON Schema: {e}")))],
    }
}

/// Defaults that are wrong are said once, not for every step that they would be written into.
fn leave_out_wrong_defaults(definition: &mut Value, findings: &[Finding]) {
    for key in ["timeout", "retry"] {
        let at = format!("/defaults/{key}");
        if findings.iter().any(|f| pointer::is_within(&f.problem.pointer, &at))
            && let Some(Value::Object(defaults)) = definition.get_mut("defaults")
        {
            defaults.shift_remove(key);
        }
    }
}

/// Lets each kind look at its configurations, but those that are not even of the right shape.
fn check_kinds(
    definition: &Value,
    tasks: &[Task],
    kinds: &StepKinds,
    said: &BTreeSet<String>,
    prompts: &dyn PromptSource,
    pinned: &mut BTreeMap<String, PromptVersion>,
    findings: &mut Vec<Finding>,
) {
    for task in tasks.iter().filter(|task| !is_said(said, &task.pointer)) {
        if let (Some(kind), Some(config)) = (kinds.get(&task.kind), definition.pointer(&task.pointer)) {
            let mut check = Check::new(prompts, pinned, &task.pointer);
            kind.validate(config, &mut check);
            findings.extend(check.into_problems().into_iter().map(about_value));
        }
    }
}

fn places(findings: &[Finding]) -> BTreeSet<String> {
    findings.iter().map(|f| f.problem.pointer.clone()).collect()
}

/// Was anything said about the place or what is in it?
fn is_said(said: &BTreeSet<String>, at: &str) -> bool {
    said.contains(at) || said.range(format!("{at}/")..).next().is_some_and(|p| pointer::is_within(p, at))
}

/// What was not said before: a value that can't be read was refused by the schema already, at its place, inside it, or for being
/// absent.
fn remaining(defects: Defects, said: &BTreeSet<String>) -> impl Iterator<Item = Finding> {
    let parent_said = |at: &str| at.rsplit_once('/').is_some_and(|(parent, _)| said.contains(parent));
    let shape: Vec<_> = defects.shape.into_iter().filter(|p| !is_said(said, &p.pointer) && !parent_said(&p.pointer)).collect();
    let values = shape.into_iter().chain(defects.meaning).map(about_value);
    values.chain(defects.about_keys.into_iter().map(|problem| Finding { problem, about_key: true }))
}

/// With their places in the file, in its order. What came into several steps from `defaults` is said once, there.
fn located(findings: Vec<Finding>, source: &Source) -> Vec<Problem> {
    let mut problems: Vec<Problem> = findings
        .into_iter()
        .map(|Finding { mut problem, about_key }| {
            problem.pointer = defaults::origin(source.json(), &problem.pointer);
            if about_key { source.locate_key(problem) } else { source.locate(problem) }
        })
        .collect();
    problems.sort_by(|a, b| {
        (a.span.map(|s| s.offset), &a.pointer, a.code, &a.message).cmp(&(b.span.map(|s| s.offset), &b.pointer, b.code, &b.message))
    });
    problems.dedup();
    problems
}
