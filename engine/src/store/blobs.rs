//! Payloads too large for a row: LZ4 block format with the length in front, kept once per run and content.

use crate::{
    id::RunId,
    payload::{Packed, Payload},
};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// What one statement carries, in bytes, or a single payload: it is held twice, and a message to the server is bounded.
const STATEMENT: usize = 16 << 20;

/// Stores payloads that are too large for a row for their runs; what is there already stays.
pub(crate) async fn insert(conn: &mut PgConnection, payloads: &[(RunId, Payload)]) -> Result<(), sqlx::Error> {
    let blobs: Vec<_> = payloads.iter().filter_map(|(run, payload)| Some((run, payload.packed()?))).collect();
    // Sorted: two transactions that store the same payloads must not wait for each other crosswise.
    let mut blobs: Vec<(RunId, &Packed)> = blobs.into_iter().map(|(run, packed)| (*run, packed)).collect();
    blobs.sort_by_key(|(run, packed)| (*run, packed.hash));
    while !blobs.is_empty() {
        let rest = blobs.split_off(fitting(&blobs));
        insert_together(conn, &std::mem::replace(&mut blobs, rest)).await?;
    }
    Ok(())
}

/// How many of them go into one statement, at least one.
fn fitting(blobs: &[(RunId, &Packed)]) -> usize {
    let mut bytes = 0;
    let fitting = blobs.iter().take_while(|(_, packed)| {
        bytes += packed.data.len();
        bytes <= STATEMENT
    });
    fitting.count().max(1)
}

async fn insert_together(conn: &mut PgConnection, blobs: &[(RunId, &Packed)]) -> Result<(), sqlx::Error> {
    let runs: Vec<Uuid> = blobs.iter().map(|b| b.0.0).collect();
    let hashes: Vec<&[u8]> = blobs.iter().map(|b| &b.1.hash[..]).collect();
    let sizes: Vec<i32> = blobs.iter().map(|b| b.1.size).collect();
    let data: Vec<&[u8]> = blobs.iter().map(|b| &b.1.data[..]).collect();
    sqlx::query!(
        "INSERT INTO krowoc.blob (run_id, hash, size, data)
         SELECT b.run, b.hash, b.size, b.data FROM unnest($1::uuid[], $2::bytea[], $3::int[], $4::bytea[]) AS b(run, hash, size, data) ORDER BY 1, 2
         ON CONFLICT (run_id, hash) DO NOTHING",
        &runs,
        &hashes as _,
        &sizes,
        &data as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Loads payloads in one round trip. What is not there is missing in the answer; data that is no payload is a decoding error.
pub(crate) async fn load(conn: &mut PgConnection, keys: &[(RunId, Vec<u8>)]) -> Result<HashMap<(RunId, Vec<u8>), Payload>, sqlx::Error> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let runs: Vec<Uuid> = keys.iter().map(|k| k.0.0).collect();
    let hashes: Vec<Vec<u8>> = keys.iter().map(|k| k.1.clone()).collect();
    let rows = sqlx::query!(
        "SELECT DISTINCT ON (b.run_id, b.hash) b.run_id, b.hash, b.data FROM unnest($1::uuid[], $2::bytea[]) AS k(run, hash)
         JOIN krowoc.blob b ON b.run_id = k.run AND b.hash = k.hash ORDER BY b.run_id, b.hash",
        &runs,
        &hashes
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|r| Ok(((RunId(r.run_id), r.hash), unpack(&r.data)?))).collect()
}

fn unpack(data: &[u8]) -> Result<Payload, sqlx::Error> {
    let bytes = lz4_flex::decompress_size_prepended(data).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    let text = String::from_utf8(bytes).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    Ok(Payload::from_json_text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_carries_so_much_and_at_least_one() {
        let packed = |bytes| Packed { hash: [0; 32], size: 0, data: vec![0; bytes] };
        let (large, small) = (packed(STATEMENT + 1), packed(STATEMENT / 2));
        let run = RunId::new();
        assert_eq!(fitting(&[(run, &large), (run, &small)]), 1);
        assert_eq!(fitting(&[(run, &small), (run, &small), (run, &small)]), 2);
        assert_eq!(fitting(&[(run, &small)]), 1);
    }

    #[test]
    fn a_payload_comes_back_as_it_went() {
        let text = format!("[{}null]", r#""a\u0000b", "#.repeat(100_000));
        let payload = Payload::from_json_text(text.clone());
        let packed = payload.packed().expect("too large for a row");
        assert!(packed.data.len() < text.len() / 10);
        assert_eq!(unpack(&packed.data).unwrap().as_str(), text);
        assert!(unpack(&packed.data[..packed.data.len() / 2]).is_err());
    }
}
