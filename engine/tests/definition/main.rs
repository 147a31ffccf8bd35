//! From workflow files to problems or a DAG, through the public surface alone.

mod good;
mod kinds;
mod schema;
mod size;
mod wrong;
