//! All SQL that writes. Free functions over a connection; transactions, rules and order of locks belong to the commands that call them.

pub(crate) mod blobs;
