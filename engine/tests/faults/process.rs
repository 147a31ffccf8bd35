//! A worker in a process of its own: this test executable once more, so that it is always the same build. It gets its orders as a line of
//! JSON on its standard input; when that closes, its parent is gone or wants it to stop.

use crate::ledger::LedgerKind;
use krowoc_engine::{
    Engine,
    executor::StepKinds,
    worker::{Stats, WorkerConfig},
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;
use std::{
    io::{BufRead, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    str::FromStr,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

/// No worker process outlives this, whatever happens to its parent.
const LIFETIME: Duration = Duration::from_secs(280);

/// What a worker process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    pub url: String,
    pub ledger: PathBuf,
    pub report: PathBuf,
    pub concurrency: usize,
    pub lease_ms: u64,
}

/// What it reports when it has stopped in good order.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub steps: usize,
    pub started: usize,
    pub refused: usize,
    pub reaped: usize,
    pub conflicts: usize,
}

#[test]
#[ignore = "the other tests start it as a process of its own"]
fn worker_process() {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("orders");
    if line.is_empty() {
        return;
    }
    let orders: Orders = serde_json::from_str(&line).expect("orders in JSON");
    let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter("error").try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(work(orders));
}

async fn work(orders: Orders) {
    let options = PgConnectOptions::from_str(&orders.url).expect("a URL");
    let engine = Engine::connect(options, StepKinds::new().with(LedgerKind::open(&orders.ledger)), 1).await.expect("connected");
    let config = WorkerConfig {
        name: format!("process {}", std::process::id()),
        concurrency: orders.concurrency,
        lease: Duration::from_millis(orders.lease_ms),
        drain: Duration::from_secs(5),
        ..Default::default()
    };
    let worker = engine.worker(config).await.expect("a worker");
    let stats = worker.stats();
    let closed = tokio::task::spawn_blocking(|| std::io::stdin().lock().read_to_end(&mut vec![]));
    if tokio::time::timeout(LIFETIME, closed).await.is_err() {
        // The reading thread can't be ended; the process can.
        std::process::exit(3);
    }
    worker.stop().await.expect("stopped");
    std::fs::write(&orders.report, serde_json::to_vec(&report(&stats)).expect("JSON")).expect("reported");
}

fn report(stats: &Stats) -> Report {
    Report {
        steps: stats.steps.load(Relaxed),
        started: stats.started.load(Relaxed),
        refused: stats.refused.load(Relaxed),
        reaped: stats.reaped.load(Relaxed),
        conflicts: stats.conflicts.load(Relaxed),
    }
}

/// A running worker process. Dropping it kills it.
pub struct Process {
    child: Child,
    orders: Option<ChildStdin>,
    report: PathBuf,
}

impl Process {
    pub fn start(orders: &Orders) -> Self {
        let executable = std::env::current_exe().expect("this executable");
        let mut child = Command::new(executable)
            .args(["process::worker_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a process");
        let mut stdin = child.stdin.take().expect("piped");
        writeln!(stdin, "{}", serde_json::to_string(orders).expect("JSON")).expect("orders were taken");
        Self { child, orders: Some(stdin), report: orders.report.clone() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process(id, signal).expect("our own child");
    }

    /// Lets it drain and gives what it reports.
    pub fn stop(mut self) -> Report {
        drop(self.orders.take());
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                assert!(status.success(), "a worker process failed: {status}");
                return read_report(&self.report);
            }
            assert!(Instant::now() < until, "a worker process did not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn read_report(path: &Path) -> Report {
    serde_json::from_slice(&std::fs::read(path).expect("a report")).expect("a report in JSON")
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
