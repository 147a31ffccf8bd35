//! What steps look at, read in batches before they are carried out.

use crate::{
    definition::RunFacts,
    id::{RunId, ScopePath},
    payload::Payload,
};
use sqlx::{PgConnection, Row};
use std::{collections::HashMap, sync::Arc};
use uuid::Uuid;

/// A run's input and facts.
#[derive(Clone)]
pub(crate) struct RunInput {
    pub input: Option<Payload>,
    pub blob: Option<Vec<u8>>,
    pub facts: Arc<RunFacts>,
}

/// Reads run headers.
pub(crate) async fn runs(conn: &mut PgConnection, ids: &[Uuid]) -> Result<HashMap<RunId, RunInput>, sqlx::Error> {
    let rows = sqlx::query!("SELECT id, input::text, input_blob, trigger, created_at, generation FROM krowoc.run WHERE id = ANY ($1)", ids)
        .fetch_all(conn)
        .await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            let started_at = r.created_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let facts = RunFacts { id: r.id.to_string(), trigger: r.trigger, started_at, attempt_generation: i32::from(r.generation) };
            (RunId(r.id), RunInput { input: r.input.map(Payload::from_json_text), blob: r.input_blob, facts: Arc::new(facts) })
        })
        .collect())
}

/// A step's address in the store.
pub(crate) type StepAddress = (RunId, ScopePath, i16);

/// Outputs of steps that succeeded, at the position of their address: inline, or the hash of a blob.
pub(crate) async fn results(
    conn: &mut PgConnection,
    addresses: &[StepAddress],
) -> Result<Vec<(usize, Option<Payload>, Option<Vec<u8>>)>, sqlx::Error> {
    let runs: Vec<Uuid> = addresses.iter().map(|a| a.0.0).collect();
    let scopes: Vec<&[u8]> = addresses.iter().map(|a| a.1.0.as_slice()).collect();
    let steps: Vec<i16> = addresses.iter().map(|a| a.2).collect();
    let rows = sqlx::query("SELECT at, output, output_blob FROM krowoc.load_results_v1($1, $2, $3)")
        .bind(runs)
        .bind(scopes)
        .bind(steps)
        .fetch_all(conn)
        .await?;
    rows.into_iter()
        .map(|r| {
            let at: i32 = r.try_get(0)?;
            Ok((at as usize - 1, r.try_get::<Option<String>, _>(1)?.map(Payload::from_json_text), r.try_get(2)?))
        })
        .collect()
}

/// A row of a map's items: JSON arrays of items and, where the map declares a key, of keys.
pub(crate) struct Chunk {
    pub items: String,
    pub keys: Option<String>,
}

/// Reads chunks of maps' items, at the position of their address.
pub(crate) async fn chunks(conn: &mut PgConnection, addresses: &[(StepAddress, i32)]) -> Result<Vec<(usize, Chunk)>, sqlx::Error> {
    let runs: Vec<Uuid> = addresses.iter().map(|(a, _)| a.0.0).collect();
    let scopes: Vec<&[u8]> = addresses.iter().map(|(a, _)| a.1.0.as_slice()).collect();
    let steps: Vec<i16> = addresses.iter().map(|(a, _)| a.2).collect();
    let chunks: Vec<i32> = addresses.iter().map(|(_, chunk)| *chunk).collect();
    let rows = sqlx::query("SELECT at, items, keys FROM krowoc.load_chunks_v1($1, $2, $3, $4)")
        .bind(runs)
        .bind(scopes)
        .bind(steps)
        .bind(chunks)
        .fetch_all(conn)
        .await?;
    rows.into_iter()
        .map(|r| {
            let at: i32 = r.try_get(0)?;
            Ok((at as usize - 1, Chunk { items: r.try_get(1)?, keys: r.try_get(2)? }))
        })
        .collect()
}
