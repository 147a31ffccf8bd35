//! The server's process: found by its pid file, told apart from another that got its number, and stopped.

use crate::{
    account::Account,
    error::{Error, IoContext, Result},
    files,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

/// What `postmaster.pid` says (its lines: `src/include/utils/pidfile.h` of PostgreSQL).
#[derive(Debug)]
pub(crate) struct Postmaster {
    pub pid: i32,
    /// Absent in the first moments.
    pub socket_folder: Option<PathBuf>,
    /// `starting`, `ready`, `stopping`, `standby`; absent in the first moments.
    pub status: Option<String>,
}

/// What was found in the data folder.
#[derive(Debug)]
pub(crate) enum Found {
    /// No pid file: nobody serves this data.
    Nothing,
    /// A pid file without a number: being written, or left half written by a crash of the machine.
    Unfinished,
    /// A pid file whose process is gone, is another program by now, or is hidden from us.
    Stale {
        /// Where that server listened.
        socket_folder: Option<PathBuf>,
    },
    /// The server.
    Running(Postmaster),
}

fn pid_file(data: &Path) -> PathBuf {
    data.join("postmaster.pid")
}

/// Who serves this data?
pub(crate) fn find(data: &Path) -> Result<Found> {
    let path = pid_file(data);
    let text = match files::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        read => read.at("reading", &path)?,
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    // In single-user mode the number is negative; such a process ends by itself.
    let number = lines.first().and_then(|line| line.parse::<i32>().ok()).and_then(i32::checked_abs);
    let Some(pid) = number.filter(|pid| *pid > 0) else {
        return Ok(Found::Unfinished);
    };
    let line = |number: usize| lines.get(number - 1).map(|line| (*line).to_owned()).filter(|line| !line.is_empty());
    let socket_folder = line(5).map(PathBuf::from);
    Ok(if serves(pid, data) { Found::Running(Postmaster { pid, socket_folder, status: line(8) }) } else { Found::Stale { socket_folder } })
}

/// No process has this number: it is above every system's limit.
const NOBODY: i32 = i32::MAX - 1;

/// Makes way for a new server where the pid file names a process that is not one, though it may live. PostgreSQL would refuse to
/// start beside it. The rest of the file is kept: by it PostgreSQL finds the memory of a server that was killed, and waits for
/// that server's last sessions.
pub(crate) fn disown(data: &Path, account: Account) -> Result<()> {
    account.replace_first_line(&pid_file(data), NOBODY)
}

/// How a server is told to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// Sessions end, everything is written out.
    Fast,
    /// As in a crash: recovery at the next start.
    Immediate,
}

/// Stops the server and waits until it is gone.
pub(crate) fn stop(pid: i32, data: &Path, how: Stop, until: Instant) -> Result<()> {
    let signal = match how {
        Stop::Fast => Signal::INT,
        Stop::Immediate => Signal::QUIT,
    };
    if let Some(process) = Pid::from_raw(pid).filter(|_| serves(pid, data)) {
        match kill_process(process, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(Error::failed(format!("stopping PostgreSQL (process {pid})"), error.to_string())),
        }
    }
    while serves(pid, data) {
        if Instant::now() >= until {
            return Err(Error::failed(format!("stopping PostgreSQL (process {pid})"), "it is still writing out its data"));
        }
        std::thread::sleep(crate::lock::TRY_AGAIN);
    }
    Ok(())
}

/// Is the process a PostgreSQL server of this data? A postmaster's working folder is its data folder. Without that evidence it is
/// not: the number may have gone to anybody's process, and what is believed here is stopped.
fn serves(pid: i32, data: &Path) -> bool {
    if !cfg!(target_os = "linux") {
        return serves_by_ps(pid, data);
    }
    let process = PathBuf::from(format!("/proc/{pid}"));
    let Ok(line) = fs::read(process.join("cmdline")) else { return false };
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let is_postgres = words[0].rsplit(|byte| *byte == b'/').next() == Some(b"postgres");
    match fs::metadata(process.join("cwd")) {
        // One that is just ending has no command any more.
        Ok(folder) => (is_postgres || line.is_empty()) && is(&folder, data),
        // Root without the capability to look into another user's process, as in a container: `pg_ctl` has said it in the command.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            is_postgres && words.windows(2).any(|pair| pair[0] == b"-D" && pair[1] == data.as_os_str().as_encoded_bytes())
        }
        // Gone, or dead and not yet waited for.
        Err(_) => false,
    }
}

/// The same folder, whatever links or mounts its path goes through.
fn is(folder: &fs::Metadata, data: &Path) -> bool {
    data.metadata().is_ok_and(|data| (data.dev(), data.ino()) == (folder.dev(), folder.ino()))
}

fn serves_by_ps(pid: i32, data: &Path) -> bool {
    let listed = std::process::Command::new("ps").args(["-ww", "-o", "stat=,args=", "-p", &pid.to_string()]).output();
    listed.is_ok_and(|output| {
        let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        line.contains("postgres") && line.contains(&format!("-D {}", data.display())) && !line.starts_with('Z')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_of_another_program_is_stale() {
        let data = tempfile::tempdir().expect("a folder");
        assert!(matches!(find(data.path()), Ok(Found::Nothing)));
        fs::write(pid_file(data.path()), "").expect("written");
        assert!(matches!(find(data.path()), Ok(Found::Unfinished)));
        // This very test: alive, but no server of that data.
        fs::write(pid_file(data.path()), format!("{}\n{}\n", std::process::id(), data.path().display())).expect("written");
        assert!(matches!(find(data.path()), Ok(Found::Stale { .. })));
        fs::write(pid_file(data.path()), "999999999\n").expect("written");
        assert!(matches!(find(data.path()), Ok(Found::Stale { .. })));
    }
}
