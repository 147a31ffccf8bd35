//! What a step was given, put together again from the record. An attempt whose worker vanished can't say; but what it looked at was
//! written before it began and never changes.

use super::{resolve, workflows};
use crate::{
    definition::{Action, Bindings, Dag, restore},
    error::{Error, Result},
    id::{FrameIx, RunId, ScopePath, StepIx, VersionId},
    payload::Payload,
    store::{inputs, maps::CHUNK},
};
use serde_json::value::RawValue;
use sqlx::PgConnection;

/// The input of the step: its rendered configuration, or a map's list. None where there is none, or no more: a wait, a step whose input
/// can't be rendered, a record that is going.
pub(super) async fn input(
    conn: &mut PgConnection,
    run: RunId,
    version: VersionId,
    scope: &ScopePath,
    step: StepIx,
) -> Result<Option<Payload>> {
    let loaded = workflows::load_version(conn, version).await?;
    let dag = restore(&loaded.definition, loaded.prompts).map_err(Error::Invalid)?;
    let template = match dag.steps.get(step.at()).map(|s| &s.action) {
        Some(Action::Task { config, .. }) => config,
        Some(Action::Map(plan)) => &plan.over,
        Some(Action::Wait(_)) | None => return Ok(None),
    };
    let mut bindings = Bindings::default();
    bind_run(conn, run, &dag, step, &mut bindings).await?;
    bind_steps(conn, run, &dag, (scope, step), &mut bindings).await?;
    bind_items(conn, run, &dag, (scope, step), &mut bindings).await?;
    Ok(template.render_payload(&bindings).ok())
}

async fn bind_run(conn: &mut PgConnection, run: RunId, dag: &Dag, step: StepIx, bindings: &mut Bindings) -> Result<()> {
    let reads = &dag.step(step).reads;
    if !reads.input && !reads.run {
        return Ok(());
    }
    let Some(header) = inputs::runs(conn, &[run.0]).await?.remove(&run) else { return Ok(()) };
    bindings.run((*header.facts).clone());
    let inline = header.input.map(|input| input.as_str().to_owned());
    if let Some(Some(input)) = resolve(conn, run, vec![(inline, header.blob)]).await?.pop() {
        bindings.input(input);
    }
    Ok(())
}

async fn bind_steps(
    conn: &mut PgConnection,
    run: RunId,
    dag: &Dag,
    (scope, step): (&ScopePath, StepIx),
    bindings: &mut Bindings,
) -> Result<()> {
    let read: Vec<(StepIx, ScopePath)> =
        dag.step(step).reads.steps.iter().filter_map(|ix| Some((*ix, enclosing(dag, scope, dag.step(*ix).frame)?))).collect();
    for (ix, _) in &read {
        bindings.step(&dag.step(*ix).id, None);
    }
    let addresses: Vec<_> = read.iter().map(|(ix, scope)| (run, scope.clone(), ix.0 as i16)).collect();
    let found = inputs::results(conn, &addresses).await?;
    let (places, stored): (Vec<usize>, Vec<_>) =
        found.into_iter().map(|(at, output, blob)| (at, (output.map(|o| o.as_str().to_owned()), blob))).unzip();
    for (at, output) in places.into_iter().zip(resolve(conn, run, stored).await?) {
        bindings.step(&dag.step(read[at].0).id, output);
    }
    Ok(())
}

async fn bind_items(
    conn: &mut PgConnection,
    run: RunId,
    dag: &Dag,
    (scope, step): (&ScopePath, StepIx),
    bindings: &mut Bindings,
) -> Result<()> {
    let mut at = ScopePath::root();
    for (map, item) in scope.segments() {
        let (outer, place) = (at.clone(), item as usize);
        at = at.item(map, item);
        let (Action::Map(plan), true) = (&dag.step(map).action, dag.step(step).reads.items.contains(&map)) else { continue };
        let address = ((run, outer, map.0 as i16), (place / CHUNK) as i32);
        let Some((_, chunk)) = inputs::chunks(conn, &[address]).await?.pop() else { continue };
        let items: Vec<Box<RawValue>> = super::parse(&chunk.items)?;
        if let Some(value) = items.get(place % CHUNK) {
            bindings.item(&plan.item, Payload::from_json_text(value.get()));
        }
    }
    Ok(())
}

/// The scope, at or around `scope`, in which the steps of a frame are carried out.
fn enclosing(dag: &Dag, scope: &ScopePath, frame: FrameIx) -> Option<ScopePath> {
    let mut at = scope.clone();
    loop {
        let outer = at.parent();
        let here = match &outer {
            None => FrameIx::ROOT,
            Some((_, map, _)) => match &dag.steps.get(map.at())?.action {
                Action::Map(plan) => plan.body,
                _ => return None,
            },
        };
        if here == frame {
            return Some(at);
        }
        at = outer?.0;
    }
}
