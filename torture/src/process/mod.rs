//! Processes of the product: this binary once more, with an [`Errand`] on its standard input. They end with the process that started them,
//! whatever becomes of it: by a signal that the system sends them then, or by the end of their input.

pub mod client;
mod keeper;
mod orders;
mod report;

pub use keeper::{Belongings, Keeper};
pub use orders::{FailPoint, Job, Orders, Role};
pub use report::Report;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{BufRead, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// The hidden command that takes orders.
pub const COMMAND: &str = "torture-process";

/// What the hidden command is for: a line of JSON on its standard input.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Errand {
    /// A worker, server or client.
    Process(Orders),
    /// Whoever cleans up where nobody else can any more.
    Keeper(Belongings),
}

impl Errand {
    /// Reads it, in the process that got it.
    pub fn take() -> Result<Self> {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        serde_json::from_str(&line).context("this command is for `krowoc torture`, which says on its standard input what is to be done")
    }
}

/// How long a process may take to stop in good order.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// What `krowoc worker` and `krowoc serve` log when they begin.
const READY: [&str; 2] = ["worker ready", "serving HTTP"];

/// A process under way. Dropping it kills it.
pub struct Process {
    child: Child,
    /// Its name among the workers, and the name of its sessions in the database.
    pub name: String,
    /// What it answers, a line each; its log.
    said: PathBuf,
    log: PathBuf,
    report: PathBuf,
}

impl Process {
    /// Starts one whose files are in a folder. To be called from the thread that outlives it: the system takes the end of a thread for the
    /// end of the parent.
    pub fn start(executable: &Path, folder: &Path, orders: &Orders, environment: &[(&str, &str)]) -> Result<Self> {
        let file = |ending: &str| folder.join(format!("{}.{ending}", orders.name));
        let (said, log) = (file("out"), file("log"));
        let mut child = Command::new(executable)
            .arg(COMMAND)
            .env("KROWOC_LOG", "warn,krowoc=info")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(File::create(&said).context("a process's output")?)
            .stderr(File::create(&log).context("a process's log")?)
            .spawn()
            .with_context(|| format!("starting {}", executable.display()))?;
        let mut stdin = child.stdin.take().context("a pipe")?;
        // One that dies before it has read them is found dead later.
        let _ = writeln!(stdin, "{}", serde_json::to_string(&Errand::Process(orders.clone()))?);
        child.stdin = Some(stdin);
        Ok(Self { child, name: orders.name.clone(), said, log, report: orders.report.clone() })
    }

    /// The system's number for it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Has it begun to work, as a worker or server says in its log?
    pub fn is_ready(&self) -> bool {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        READY.iter().any(|words| log.contains(words))
    }

    /// Waits until it is.
    pub async fn ready(&mut self, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        while !self.is_ready() {
            let ended = self.ended()?;
            ensure!(ended.is_none() && Instant::now() < until, "{} has not begun within {within:?}: {}", self.name, self.last_words());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// SIGKILL; gives the moment. One that has just ended by itself is as dead.
    pub fn kill(&mut self) -> Result<Instant> {
        let at = Instant::now();
        self.child.kill()?;
        self.child.wait()?;
        Ok(at)
    }

    /// SIGSTOP.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// What it has answered so far, a line each.
    pub fn answers(&self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(&self.said)?;
        // A last line without an end was cut off.
        Ok(text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect())
    }

    /// Stops it as an operator does and gives what it reports.
    pub async fn stop(mut self) -> Result<Report> {
        if self.ended()?.is_none() {
            self.signal(Signal::TERM)?;
        }
        let status = self.end(STOPS_WITHIN).await?;
        if status.signal() == Some(Signal::TERM.as_raw()) {
            // It did not listen yet: it does before it begins with anything.
            return Ok(Report::default());
        }
        ensure!(status.success(), "{} failed ({status}): {}", self.name, self.last_words());
        let report = std::fs::read(&self.report).with_context(|| format!("{} left no report", self.name))?;
        Ok(serde_json::from_slice(&report)?)
    }

    /// Waits for its end.
    pub async fn end(&mut self, within: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > until {
                bail!("{} has not ended within {within:?}: {}", self.name, self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// Did SIGKILL end it?
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
