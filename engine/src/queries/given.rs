//! What a step was given, put together again from the record. An attempt whose worker vanished can't say; but what it looked at was
//! written before it began and never changes.

use super::{outputs, resolve, workflows};
use crate::{
    definition::{Action, Bindings, Dag, restore},
    error::{Error, Result},
    id::{RunId, ScopePath, StepIx, VersionId},
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
    if let Some(Some(input)) = resolve(conn, run, vec![(header.input, header.blob)]).await?.pop() {
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
    let read: Vec<(ScopePath, StepIx)> =
        dag.step(step).reads.steps.iter().filter_map(|ix| Some((dag.enclosing(scope, *ix)?, *ix))).collect();
    for ((_, ix), output) in read.clone().into_iter().zip(outputs(conn, run, read).await?) {
        bindings.step(&dag.step(ix).id, output);
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
    for (outer, map, item) in scope.items() {
        let place = item as usize;
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
