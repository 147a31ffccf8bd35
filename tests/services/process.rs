//! A `krowoc` under test: what it says, how it is told to stop, how it ends.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Nothing here takes that long on a machine that works.
pub const LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A running process, killed when dropped. Both outputs go to one file.
pub struct Process {
    child: Child,
    said: tempfile::NamedTempFile,
}

impl Process {
    pub fn start(folder: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let said = tempfile::NamedTempFile::new().expect("a file");
        let write = |file: &tempfile::NamedTempFile| -> File { fs::OpenOptions::new().append(true).open(file.path()).expect("opened") };
        let child = Command::new(env!("CARGO_BIN_EXE_krowoc"))
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .env("HOME", folder)
            .env("NO_COLOR", "1")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::from(write(&said)))
            .stderr(Stdio::from(write(&said)))
            .spawn()
            .expect("krowoc runs");
        Self { child, said }
    }

    pub fn said(&self) -> String {
        fs::read_to_string(self.said.path()).expect("text")
    }

    /// Waits until it says so; gives everything it has said.
    #[track_caller]
    pub fn says(&mut self, words: &str) -> String {
        let until = Instant::now() + LIMIT;
        loop {
            let said = self.said();
            if said.contains(words) {
                return said;
            }
            let ended = self.child.try_wait().expect("waited");
            assert!(ended.is_none() && Instant::now() < until, "`{words}` was not said ({ended:?}):\n{said}");
            sleep(LOOK_AGAIN);
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a process");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ends(mut self) -> (ExitStatus, String) {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("waited") {
                return (status, self.said());
            }
            assert!(Instant::now() < until, "it does not end:\n{}", self.said());
            sleep(LOOK_AGAIN);
        }
    }

    /// Where it serves HTTP, by its log.
    #[track_caller]
    pub fn address(&mut self) -> String {
        let said = self.says("serving HTTP address=");
        let (_, after) = said.split_once("serving HTTP address=").expect("said");
        after.split_whitespace().next().expect("an address").to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of a GET.
pub fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(LIMIT)).expect("set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// Waits until the path answers with the status; gives the body.
#[track_caller]
pub fn answers(address: &str, path: &str, status: u16) -> String {
    let until = Instant::now() + LIMIT;
    loop {
        let (got, body) = get(address, path);
        if got == status {
            return body;
        }
        assert!(Instant::now() < until, "{path} still answers {got}: {body}");
        sleep(LOOK_AGAIN);
    }
}

/// Waits until `/metrics` has the line (what is counted is counted after its commit); gives all.
#[track_caller]
pub fn measures(address: &str, line: &str) -> String {
    let until = Instant::now() + LIMIT;
    loop {
        let (_, metrics) = get(address, "/metrics");
        if metrics.lines().any(|found| found == line) {
            return metrics;
        }
        assert!(Instant::now() < until, "{line} is missing in\n{metrics}");
        sleep(LOOK_AGAIN);
    }
}
