//! The `krowoc` binary.
fn main() {}
