//! The keys of map items: from an address in words to one in numbers and back.

use crate::{
    definition::{Action, Dag, Problem},
    error::{Error, Result},
    id::{RunId, ScopePath, StepIx},
    path::{self, StepPath},
    store::maps::{self, CHUNK},
};
use sqlx::PgConnection;
use std::collections::HashMap;

/// Keys of items, in chunks, by the scope that their map stands in, the map and the chunk's number. Only maps that declare a key have them.
#[derive(Clone, Debug, Default)]
pub struct Keys(HashMap<(ScopePath, StepIx, usize), Vec<String>>);

impl Keys {
    /// An item's key.
    pub fn get(&self, scope: &ScopePath, map: StepIx, item: u32) -> Option<String> {
        self.0.get(&(scope.clone(), map, item as usize / CHUNK))?.get(item as usize % CHUNK).cloned()
    }

    /// The address of a step.
    pub fn path(&self, dag: &Dag, scope: &ScopePath, step: StepIx) -> String {
        path::print(dag, scope, step, |at, map, item| self.get(at, map, item))
    }

    /// The address of an item; empty for the run itself.
    pub fn item_path(&self, dag: &Dag, scope: &ScopePath) -> String {
        path::print_scope(dag, scope, |at, map, item| self.get(at, map, item))
    }
}

/// Loads the keys of every item in the given scopes, in one round trip; none if no map around them declares a key.
pub(crate) async fn load<'a>(
    conn: &mut PgConnection,
    run: RunId,
    dag: &Dag,
    scopes: impl IntoIterator<Item = &'a ScopePath>,
) -> Result<Keys> {
    let keyed: Vec<_> = scopes.into_iter().filter(|s| s.segments().any(|(map, _)| has_keys(dag, map))).map(|s| (run, s)).collect();
    let chunks = maps::load_keys(conn, &keyed).await?;
    Ok(Keys(chunks.into_iter().map(|((_, scope, map, chunk), keys)| ((scope, map, chunk), keys)).collect()))
}

fn has_keys(dag: &Dag, map: StepIx) -> bool {
    matches!(dag.steps.get(map.at()).map(|s| &s.action), Some(Action::Map(plan)) if plan.key.is_some())
}

/// What an address in words means in a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The scope in which the step stands.
    pub scope: ScopePath,
    /// The step.
    pub step: StepIx,
    /// The item, where the address ends with one: `review[s1]`.
    pub item: Option<u32>,
}

/// Looks an address up in a run: keys in the chunks of its maps, numbers as they are. Invalid if the
/// workflow has no such step, not found if the map has no such item.
pub async fn resolve(conn: &mut PgConnection, run: RunId, dag: &Dag, path: &StepPath) -> Result<Place> {
    let steps = path.steps(dag).map_err(|e| Error::Invalid(vec![Problem::new("step_path", "", e.to_string())]))?;
    let mut scope = ScopePath::root();
    let mut place = None;
    for (step, segment) in steps.into_iter().zip(&path.0) {
        if let Some(Place { scope: outer, step: map, item: Some(item) }) = place.take() {
            scope = ScopePath::item(&outer, map, item);
        }
        let item = match &segment.item {
            None => None,
            Some(name) => Some(item_number(conn, run, dag, &scope, step, name).await?.ok_or_else(|| Error::not_found("map item", path))?),
        };
        place = Some(Place { scope: scope.clone(), step, item });
    }
    place.ok_or_else(|| Error::not_found("step", path))
}

async fn item_number(conn: &mut PgConnection, run: RunId, dag: &Dag, scope: &ScopePath, map: StepIx, name: &str) -> Result<Option<u32>> {
    if !has_keys(dag, map) {
        let total = super::states::total_items(conn, run, scope, map).await?;
        return Ok(name.parse().ok().filter(|n| *n < total));
    }
    let rows = sqlx::query!(
        r#"SELECT chunk, keys::text AS "keys!" FROM krowoc.map_chunk WHERE run_id = $1 AND scope = $2 AND step = $3 AND keys IS NOT NULL ORDER BY chunk"#,
        run.0,
        &scope.0,
        map.0 as i16
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let keys: Vec<String> = super::parse(&row.keys)?;
        if let Some(at) = keys.iter().position(|k| k == name) {
            return Ok(Some(row.chunk.unsigned_abs() * CHUNK as u32 + at as u32));
        }
    }
    Ok(None)
}
