//! What a command says on standard output. Whoever reads it may stop reading (`krowoc schema workflow | head`): that is no failure, and
//! decided here, where nothing but standard output can be meant. So a command's exit code says how its work went, whoever still listens.

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
    write(&mut io::stdout().lock(), bytes)
}

fn write(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("standard output can't be written: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// A line for people on standard error, beside what the command is for: progress, hints. Nobody reading it is no failure.
pub fn note(text: impl AsRef<str>) {
    writeln!(io::stderr().lock(), "{}", text.as_ref()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed(io::ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is_one() {
        assert!(write(&mut Closed(io::ErrorKind::BrokenPipe), b"x").is_ok());
        let full = write(&mut Closed(io::ErrorKind::StorageFull), b"x").expect_err("a failure");
        assert!(full.to_string().starts_with("standard output can't be written"), "{full}");
    }
}
