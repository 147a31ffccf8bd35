//! The two lock files. They end with the process that holds them, so nothing is left behind by one that was killed.

use crate::error::{Error, IoContext, Result};
use rustix::fs::OFlags;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Between two tries: short beside a start, long beside a system call.
pub(crate) const TRY_AGAIN: Duration = Duration::from_millis(10);

/// A lock file, held or not.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Opens or makes it; never what a link points to, since its text is written anew.
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits() as i32);
        let file = options.open(path).at("opening", path)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Held by nobody else? Then it is ours alone.
    pub fn try_exclusive(&self) -> Result<bool> {
        self.taken(self.file.try_lock())
    }

    /// Held by nobody exclusively? Then it is ours too. Turns an exclusive hold into a shared one.
    pub fn try_shared(&self) -> Result<bool> {
        self.taken(self.file.try_lock_shared())
    }

    /// Waits for the lock. Polls, since a thread that waits in the system call could not give up.
    pub fn exclusive(&mut self, until: Instant) -> Result<()> {
        let began = Instant::now();
        while !self.try_exclusive()? {
            if Instant::now() >= until {
                let mut holder = String::new();
                self.file.rewind().and_then(|()| self.file.read_to_string(&mut holder)).at("reading", &self.path)?;
                return Err(Error::Busy { path: self.path.clone(), waited: began.elapsed(), holder: holder.trim().to_owned() });
            }
            std::thread::sleep(TRY_AGAIN);
        }
        self.note();
        Ok(())
    }

    /// Lets go. Said rather than left to closing: a child that another thread is just starting shares the file until it has become
    /// another program, and would keep the lock for that long.
    pub fn release(&self) -> Result<()> {
        self.file.unlock().at("unlocking", &self.path)
    }

    /// Writes who was here, for people and for [`crate::testing`]'s watchdog. A full disk does not keep anybody out.
    pub fn note(&mut self) {
        let text = format!("process {}\n", std::process::id());
        let noted = self.file.set_len(0).and_then(|()| self.file.rewind()).and_then(|()| self.file.write_all(text.as_bytes()));
        if let Err(error) = noted {
            tracing::debug!(path = %self.path.display(), %error, "the lock is held without a note");
        }
    }

    fn taken(&self, tried: Result<(), TryLockError>) -> Result<bool> {
        match tried {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error).at("locking", &self.path),
        }
    }
}
