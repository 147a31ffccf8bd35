//! What every expression looks at: resolved to steps and items, checked against the schemas of inputs and outputs, and turned
//! into the edges of the graph.

use super::{
    Problem,
    dag::{Action, Reads, WaitPlan},
    draft::Draft,
    expression::{Reference, Segment, Template},
    output,
    schema::{JsonType, Lookup, Schema},
    structure::ROOTS,
    suggest::{advise, suggest},
};
use crate::id::StepIx;
use serde_json::json;
use std::collections::{BTreeSet, HashMap};

/// What is resolved: indexes are those of the draft.
#[derive(Default)]
pub(super) struct Resolved {
    /// For each step, what `when` and its action read.
    pub reads: Vec<Reads>,
    /// For each map, what `collect` reads.
    pub collect_reads: HashMap<usize, Reads>,
    /// What the run's output reads.
    pub output_reads: Reads,
    /// (waiting step, step waited for), of the same frame; the same edge may be there more than once.
    pub edges: Vec<(usize, usize)>,
    pub problems: Vec<Problem>,
}

/// Resolves everything in the draft.
pub(super) fn resolve(draft: &Draft) -> Resolved {
    let mut pass = Pass::new(draft);
    for frame in 0..draft.frames.len() {
        pass.origins.push(pass.origin(frame));
    }
    for ix in 0..draft.steps.len() {
        pass.step(ix);
    }
    if let Some((_, output)) = &draft.output {
        let mut reads = Reads::default();
        pass.template(output, Site { frame: 0, items: 0, step: None }, &mut reads);
        pass.done.output_reads = sorted(reads);
    }
    if let Some(schema) = &draft.output_schema {
        let output = draft.output.as_ref().map(|(value, template)| (value, template));
        let problems = output::check(output, schema, &|reference| pass.types_of(reference));
        pass.done.problems.extend(problems);
    }
    pass.done
}

/// Where an expression stands: the frame whose steps it sees first, the innermost frame whose item it sees, and the step that it
/// belongs to.
#[derive(Clone, Copy)]
struct Site {
    frame: usize,
    items: usize,
    step: Option<usize>,
}

struct Pass<'a> {
    draft: &'a Draft,
    /// What a map's output looks like, with `collect` and without.
    collected: Option<Schema>,
    counted: Option<Schema>,
    /// For each frame, where the file says what its items look like: a schema, and the path to an item in it.
    origins: Vec<Option<(SchemaOf, Vec<Segment>)>>,
    suggestions_left: usize,
    done: Resolved,
}

/// Whose schema.
#[derive(Clone, Copy)]
enum SchemaOf {
    Input,
    Step(usize),
}

impl<'a> Pass<'a> {
    fn new(draft: &'a Draft) -> Self {
        let count = json!({"type": "integer"});
        let counted = json!({
            "type": "object",
            "properties": {"total": count, "succeeded": count, "failed": count},
            "additionalProperties": false
        });
        Self {
            draft,
            collected: Schema::compile(&json!({"type": "array"})).ok(),
            counted: Schema::compile(&counted).ok(),
            origins: Vec::new(),
            // Looking for a near name costs a pass over all that are visible: a file with thousands of slips gets no more.
            suggestions_left: 200,
            done: Resolved::default(),
        }
    }

    fn step(&mut self, ix: usize) {
        let step = &self.draft.steps[ix];
        let here = Site { frame: step.frame, items: step.frame, step: Some(ix) };
        self.needs(ix);
        let mut reads = Reads::default();
        if let Some(when) = &step.when {
            self.template(when, here, &mut reads);
        }
        match &step.action {
            Some(Action::Task { config, .. }) => self.template(config, here, &mut reads),
            Some(Action::Wait(WaitPlan::For(time) | WaitPlan::Until(time))) => self.template(time, here, &mut reads),
            Some(Action::Map(plan)) => {
                self.template(&plan.over, here, &mut reads);
                let body = plan.body.at();
                self.list(body, &step.pointer);
                if let Some(key) = &plan.key {
                    self.template(key, Site { items: body, ..here }, &mut reads);
                }
                if let Some(collect) = &plan.collect {
                    let mut collected = Reads::default();
                    self.template(collect, Site { frame: body, items: body, step: Some(ix) }, &mut collected);
                    self.done.collect_reads.insert(ix, sorted(collected));
                }
            }
            None => {}
        }
        self.done.reads.push(sorted(reads));
    }

    fn needs(&mut self, ix: usize) {
        let step = &self.draft.steps[ix];
        let frame = &self.draft.frames[step.frame];
        for (position, id) in step.needs.iter().enumerate() {
            let at = format!("{}/needs/{position}", step.pointer);
            match frame.ids.get(id) {
                Some(other) if *other == ix => {
                    self.done.problems.push(Problem::new("self_reference", at, format!("`{id}` can't wait for itself")));
                }
                Some(other) => self.done.edges.push((ix, *other)),
                None => {
                    let problem = Problem::new("unknown_step", at, format!("`needs` names steps beside `{}`; there is no `{id}`", step.id));
                    let help = match self.draft.owners(step.frame).skip(1).find(|f| self.draft.frames[*f].ids.contains_key(id)) {
                        Some(_) => Some(format!("`{id}` stands outside the map: put it into the `needs` of the map")),
                        None => self.near(id, step.frame, true),
                    };
                    self.done.problems.push(with_help(problem, help));
                }
            }
        }
    }

    /// Where a frame's items come from, if the list is a plain lookup. Frames stand after those around them.
    fn origin(&self, frame: usize) -> Option<(SchemaOf, Vec<Segment>)> {
        let list = self.draft.frames[frame].list.as_ref()?;
        let around = self.draft.steps[self.draft.frames[frame].owner?].frame;
        let (of, mut path) = match list.root.as_str() {
            "input" => (SchemaOf::Input, list.path.clone()),
            "steps" => match list.path.as_slice() {
                [Segment::Key(id), Segment::Key(word), rest @ ..] if word == "output" => {
                    (SchemaOf::Step(self.visible(id, around)?.1), rest.to_vec())
                }
                _ => return None,
            },
            item => {
                let outer = self.draft.owners(around).find(|f| self.draft.frames[*f].item == item)?;
                let (of, path) = self.origins.get(outer)?.clone()?;
                (of, [path, list.path.clone()].concat())
            }
        };
        path.push(Segment::Index(0));
        Some((of, path))
    }

    /// A list whose schema says that it is none.
    fn list(&mut self, body: usize, at: &str) {
        let Some((of, item)) = &self.origins[body] else { return };
        let list = &item[..item.len() - 1];
        if let Some(Lookup::Known(types)) = self.schema(*of).map(|s| s.type_at(list))
            && !types.contains(&JsonType::Array)
        {
            let names: Vec<String> = types.iter().map(ToString::to_string).collect();
            let message = format!("`over` needs a list, this is of type {}", names.join(" or "));
            self.done.problems.push(Problem::new("type_mismatch", format!("{at}/map/over"), message));
        }
    }

    fn template(&mut self, template: &Template, site: Site, reads: &mut Reads) {
        for reference in template.references() {
            self.reference(reference, site, reads);
        }
    }

    fn reference(&mut self, reference: &Reference, site: Site, reads: &mut Reads) {
        match reference.root.as_str() {
            "input" => {
                reads.input = true;
                self.path(reference, SchemaOf::Input, &reference.path, "input");
            }
            "run" => {
                reads.run = true;
                self.run(reference);
            }
            "steps" => self.output_of(reference, site, reads),
            root if ROOTS.contains(&root) => self.not_here(reference),
            root => self.item(reference, root, site, reads),
        }
    }

    fn output_of(&mut self, reference: &Reference, site: Site, reads: &mut Reads) {
        let at = &reference.pointer;
        let Some(Segment::Key(id)) = reference.path.first() else {
            let problem = Problem::new("incomplete_reference", at, "`steps` is followed by the id of a step");
            return self.done.problems.push(problem.help("`steps.<id>.output`; edges come from these names, so they can't be computed"));
        };
        let Some((frame, target)) = self.visible(id, site.frame) else { return self.unknown_step(reference, id, site) };
        match reference.path.get(1) {
            Some(Segment::Key(word)) if word == "output" => {}
            _ => {
                let problem = Problem::new("incomplete_reference", at, format!("of the step `{id}` only `output` can be read"));
                return self.done.problems.push(problem.help(format!("`steps.{id}.output`")));
            }
        }
        let waiting = match site.step {
            // `collect` stands on the map and sees the steps of its body.
            Some(step) if frame == site.frame && self.draft.steps[step].frame != frame => None,
            step => step.and_then(|step| self.around(step, frame)),
        };
        if waiting == Some(target) {
            let message = match self.draft.steps[target].body {
                Some(_) => format!("inside `{id}` its own output is not there yet"),
                None => format!("`{id}` can't read its own output"),
            };
            return self.done.problems.push(Problem::new("self_reference", at, message));
        }
        self.done.edges.extend(waiting.map(|w| (w, target)));
        // A workflow has at most 20,000 steps.
        reads.steps.push(StepIx(target as u16));
        self.path(reference, SchemaOf::Step(target), &reference.path[2..], &format!("steps.{id}.output"));
    }

    /// The step in `frame` that the step is, or stands in.
    fn around(&self, mut step: usize, frame: usize) -> Option<usize> {
        while self.draft.steps[step].frame != frame {
            step = self.draft.frames[self.draft.steps[step].frame].owner?;
        }
        Some(step)
    }

    /// A step's frame and index, if an expression in `frame` sees it.
    fn visible(&self, id: &str, frame: usize) -> Option<(usize, usize)> {
        self.draft.owners(frame).find_map(|f| self.draft.frames[f].ids.get(id).map(|ix| (f, *ix)))
    }

    fn unknown_step(&mut self, reference: &Reference, id: &str, site: Site) {
        let problem = Problem::new("unknown_step", &reference.pointer, format!("unknown step `{id}`"));
        let hidden = (self.suggestions_left > 0).then(|| self.draft.steps.iter().find(|s| s.id == id)).flatten();
        let help = match hidden.and_then(|step| self.draft.frames[step.frame].owner) {
            Some(map) => {
                self.suggestions_left -= 1;
                let map = &self.draft.steps[map].id;
                Some(format!("`{id}` is inside the map `{map}`: collect what you need of it and read `steps.{map}.output`"))
            }
            None => self.near(id, site.frame, false),
        };
        self.done.problems.push(with_help(problem, help));
    }

    /// The visible step (or the sibling) whose id is nearest.
    fn near(&mut self, id: &str, frame: usize, siblings: bool) -> Option<String> {
        self.suggestions_left = self.suggestions_left.checked_sub(1)?;
        let frames = self.draft.owners(frame).take(if siblings { 1 } else { usize::MAX });
        let ids = frames.flat_map(|f| self.draft.frames[f].members.iter().map(|m| self.draft.steps[*m].id.as_str()));
        suggest(id, ids).map(|near| format!("did you mean `{near}`?"))
    }

    fn item(&mut self, reference: &Reference, name: &str, site: Site, reads: &mut Reads) {
        let mut frames = self.draft.owners(site.items).filter(|f| self.draft.frames[*f].owner.is_some());
        if let Some(frame) = frames.find(|f| self.draft.frames[*f].item == name) {
            let Some(map) = self.draft.frames[frame].owner else { return };
            reads.items.push(StepIx(map as u16));
            if let Some((of, mut path)) = self.origins[frame].clone() {
                path.extend_from_slice(&reference.path);
                self.path(reference, of, &path, name);
            }
            return;
        }
        let items =
            self.draft.owners(site.items).filter(|f| self.draft.frames[*f].owner.is_some()).map(|f| self.draft.frames[f].item.as_str());
        let names: Vec<&str> = ["input", "steps", "run"].into_iter().chain(items).collect();
        let problem = Problem::new("unknown_name", &reference.pointer, format!("unknown name `{name}`"));
        self.suggestions_left = self.suggestions_left.saturating_sub(1);
        let help = if self.suggestions_left > 0 && self.draft.steps.iter().any(|s| s.id == name) {
            Some(format!("the output of a step is `steps.{name}.output`"))
        } else {
            advise(name, "there are", &names)
        };
        self.done.problems.push(with_help(problem, help));
    }

    fn run(&mut self, reference: &Reference) {
        const NOW: [&str; 4] = ["id", "trigger", "started_at", "attempt_generation"];
        const LATER: [&str; 3] = ["url", "cost_usd", "tokens"];
        let Some(Segment::Key(name)) = reference.path.first() else { return };
        if NOW.contains(&name.as_str()) {
            return;
        }
        let problem = Problem::new("unknown_field", &reference.pointer, format!("`run` has no `{name}`"));
        let help = if LATER.contains(&name.as_str()) {
            Some(format!("this version of Krowoc does not have `run.{name}` yet"))
        } else {
            advise(name, "it has", &NOW)
        };
        self.done.problems.push(with_help(problem, help));
    }

    fn not_here(&mut self, reference: &Reference) {
        let root = &reference.root;
        let place = match root.as_str() {
            "loop" => "inside `repeat`",
            "failure" => "in `on_failure`",
            "secrets" => "in marked fields",
            _ => "in a webhook trigger",
        };
        let problem = Problem::new("not_available", &reference.pointer, format!("`{root}` is not available here"));
        self.done.problems.push(problem.help(format!("it belongs {place}, which this version of Krowoc does not have yet")));
    }

    /// Checks a lookup against a schema, where there is one.
    fn path(&mut self, reference: &Reference, of: SchemaOf, path: &[Segment], name: &str) {
        let Some(Lookup::Missing { nearest, known }) = self.schema(of).map(|s| s.type_at(path)) else { return };
        let problem =
            Problem::new("unknown_field", &reference.pointer, format!("`{}` is not in the schema of `{name}`", written(reference)));
        let help = match nearest {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None if known.is_empty() => None,
            None => Some(format!("there are: {}", known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", "))),
        };
        self.done.problems.push(with_help(problem, help));
    }

    /// The types of what the run's output refers to, where a schema has them.
    fn types_of(&self, reference: &Reference) -> Option<BTreeSet<JsonType>> {
        let (of, path) = match (reference.root.as_str(), reference.path.as_slice()) {
            ("input", path) => (SchemaOf::Input, path),
            ("steps", [Segment::Key(id), Segment::Key(word), path @ ..]) if word == "output" => {
                (SchemaOf::Step(self.visible(id, 0)?.1), path)
            }
            _ => return None,
        };
        match self.schema(of)?.type_at(path) {
            Lookup::Known(types) => Some(types),
            _ => None,
        }
    }

    fn schema(&self, of: SchemaOf) -> Option<&Schema> {
        let step = match of {
            SchemaOf::Input => return self.draft.input.as_ref(),
            SchemaOf::Step(ix) => &self.draft.steps[ix],
        };
        match (&step.output, &step.action) {
            (Some(schema), _) => Some(schema),
            (None, Some(Action::Map(plan))) if plan.collect.is_some() => self.collected.as_ref(),
            (None, Some(Action::Map(_))) => self.counted.as_ref(),
            _ => None,
        }
    }
}

fn sorted(mut reads: Reads) -> Reads {
    reads.steps.sort_unstable();
    reads.steps.dedup();
    reads.items.sort_unstable();
    reads.items.dedup();
    reads
}

fn with_help(problem: Problem, help: Option<String>) -> Problem {
    match help {
        Some(help) => problem.help(help),
        None => problem,
    }
}

/// A reference as an author writes it.
pub(super) fn written(reference: &Reference) -> String {
    let mut text = reference.root.clone();
    for segment in &reference.path {
        match segment {
            Segment::Key(name) => text.push_str(&format!(".{name}")),
            Segment::Index(at) => text.push_str(&format!("[{at}]")),
        }
    }
    text
}
