//! What can go wrong, each with what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable PostgreSQL on this machine.
    #[error(
        "PostgreSQL {} or newer is not installed (searched: {}){}\nInstall it with:  {install}\nor set DATABASE_URL to a server of your own",
        crate::OLDEST_MAJOR,
        .searched.join(", "),
        .download.as_ref().map_or(String::new(), |why| format!("; its download failed: {why}"))
    )]
    NotInstalled {
        /// Where it was looked for.
        searched: Vec<String>,
        /// Why the download failed, if one was tried.
        download: Option<String>,
        /// The command that installs it.
        install: String,
    },
    /// The data was written by another major version than those installed.
    #[error(
        "the data in {} belongs to PostgreSQL {data_major}, installed is {}\nInstall PostgreSQL {data_major} beside it, or move the data with \
         pg_upgrade (https://www.postgresql.org/docs/current/pgupgrade.html), or start afresh by moving the folder away",
        .data.display(),
        majors(.installed)
    )]
    MajorMismatch {
        /// The data folder.
        data: PathBuf,
        /// Who wrote it.
        data_major: u32,
        /// What was found.
        installed: Vec<u32>,
    },
    /// A folder belongs to somebody else.
    #[error("{} belongs to user {owner}, not to {expected}\nRun as its owner, give it to user {expected} (chown), or choose another folder with KROWOC_HOME", .path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// Whose it should be.
        expected: u32,
    },
    /// Another process kept a lock for too long.
    #[error("{} was held for {} s by another process ({holder})\nIf that process hangs, end it and try again", .path.display(), .waited.as_secs())]
    Busy {
        /// The lock.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
        /// What is known about the holder.
        holder: String,
    },
    /// A server runs but does not answer, and others use it.
    #[error(
        "PostgreSQL (process {pid}) runs on {} but does not answer: {reason}\nStop the other krowoc processes; the next start restarts it. Its log: {}",
        .data.display(),
        .log.display()
    )]
    Unreachable {
        /// The server's process.
        pid: i32,
        /// Its data.
        data: PathBuf,
        /// What the connection met.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// One of PostgreSQL's programs failed.
    #[error("{what} failed: {reason}{}{}", tail(.log, .last_lines), advice(&[reason, last_lines]))]
    Failed {
        /// Which program, for what.
        what: String,
        /// What it said.
        reason: String,
        /// The server's log, where there is one.
        log: Option<PathBuf>,
        /// That log's end.
        last_lines: String,
    },
    /// The system refused.
    #[error("{what} {}: {source}{}", .path.display(), advice(&[&source.to_string()]))]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn failed(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), reason: reason.into(), log: None, last_lines: String::new() }
    }
}

/// Names the file an error of the system is about.
pub(crate) trait IoContext<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { what, path: path.to_owned(), source })
    }
}

/// What to do about what the system says most often, whoever passes it on.
fn advice(texts: &[&str]) -> &'static str {
    [
        ("No space left on device", "\nFree some space and try again; nothing that was stored is lost"),
        ("Disk quota exceeded", "\nFree some space and try again; nothing that was stored is lost"),
        ("Read-only file system", "\nChoose a folder that can be written to with KROWOC_HOME, or set DATABASE_URL"),
        ("Permission denied", "\nOpen it to this user, choose another folder with KROWOC_HOME, or set DATABASE_URL"),
        ("File name too long", "\nChoose a shorter path with KROWOC_HOME"),
        ("symbolic links", "\nA link stands where a file of Krowoc's belongs; remove it and try again"),
    ]
    .into_iter()
    .find_map(|(sign, advice)| texts.iter().any(|text| text.contains(sign)).then_some(advice))
    .unwrap_or_default()
}

fn majors(found: &[u32]) -> String {
    found.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ")
}

fn tail(log: &Option<PathBuf>, last_lines: &str) -> String {
    match log {
        Some(log) if last_lines.is_empty() => format!("\nIts log: {}", log.display()),
        Some(log) => format!("\nThe end of {}:\n{last_lines}", log.display()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_comes_with_what_to_do() {
        let path = Path::new("/srv/krowoc/start.lock");
        let refused = |number: i32| -> Result<()> { Err(io::Error::from_raw_os_error(number)).at("opening", path) };
        for (number, advice) in [(28, "Free some space"), (30, "KROWOC_HOME"), (13, "KROWOC_HOME")] {
            let text = refused(number).expect_err("refused").to_string();
            assert!(text.starts_with("opening /srv/krowoc/start.lock: ") && text.contains(advice), "{text}");
        }
        let log = "FATAL:  could not write lock file \"postmaster.pid\": No space left on device".to_owned();
        let error = Error::Failed { what: "starting".into(), reason: "could not start".into(), log: None, last_lines: log };
        assert!(error.to_string().contains("Free some space"), "{error}");
    }
}
