//! All SQL that writes. Free functions over a connection; transactions, rules and order of locks belong to the commands that call them.

pub(crate) mod api_tokens;
pub(crate) mod blobs;
pub(crate) mod bundles;
pub(crate) mod dead_letters;
pub(crate) mod holder;
pub(crate) mod hot;
pub(crate) mod inputs;
#[cfg(test)]
mod invariants;
pub(crate) mod lanes;
pub(crate) mod maps;
pub(crate) mod migrate;
pub(crate) mod records;
pub(crate) mod redrive;
pub(crate) mod retention;
pub(crate) mod rows;
pub(crate) mod runs;
pub(crate) mod workers;
pub(crate) mod workflows;
