//! What a command says on standard output. Whoever reads it may stop reading (`krowoc schema workflow | head`): that is no failure.

use serde::Serialize;
use std::io::{self, Write};

/// A line for people.
pub fn line(text: impl AsRef<str>) -> io::Result<()> {
    bytes(format!("{}\n", text.as_ref()).as_bytes())
}

/// A value for programs.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    bytes(&text)
}

/// As it is.
pub fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// A line for people on standard error, beside what the command is for: progress, hints. Nobody reading it is no failure.
pub fn note(text: impl AsRef<str>) {
    writeln!(io::stderr().lock(), "{}", text.as_ref()).ok();
}

/// Did the reader of the output stop reading?
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
