//! What a long-running process shows of itself: health, metrics, and where.

use krowoc_api::{
    Api, Hosts, Served,
    auth::Guard,
    health::{Check, Readiness},
    limits::LimitsConfig,
    metrics::Metrics,
    operations, routes,
    server::Server,
};
use krowoc_engine::{Engine, Error, measures, queries::queues, worker::StepThreads};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A probe's own patience is about two seconds; the database's part must be over before.
const DATABASE_WITHIN: Duration = Duration::from_millis(1500);

/// Counts from now on. To be called before anything that counts is started.
pub fn measure() -> anyhow::Result<Metrics> {
    let metrics = Metrics::install()?;
    measures::describe();
    Ok(metrics)
}

/// What is served.
pub enum Surface {
    /// Health and metrics.
    Operators,
    /// The API as well.
    All {
        /// Who knows the token.
        guard: Guard,
        /// For which hosts.
        hosts: Hosts,
    },
}

/// An HTTP server under way.
pub struct Operations {
    address: SocketAddr,
    draining: CancellationToken,
    stop: CancellationToken,
    api: Option<Api>,
    server: JoinHandle<std::io::Result<()>>,
    upkeep: JoinHandle<()>,
}

impl Operations {
    /// Serves on a bound server.
    pub fn start(server: Server, engine: Engine, metrics: Metrics, surface: Surface) -> Self {
        let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
        let readiness = Arc::new(OfEngine { engine: engine.clone(), draining: draining.clone() });
        let address = server.address();
        let upkeep = tokio::spawn(metrics.clone().keep_up());
        let stopped = stop.clone().cancelled_owned();
        let (api, server) = match surface {
            Surface::Operators => (None, tokio::spawn(server.run(operations(readiness, metrics), stopped))),
            Surface::All { guard, hosts } => {
                let api = Api::new(engine);
                let served = Served { api: api.clone(), guard, limits: LimitsConfig::default(), readiness, metrics, hosts };
                (Some(api), tokio::spawn(server.run(routes(served), stopped)))
            }
        };
        tracing::info!(%address, "serving HTTP");
        Self { address, draining, stop, api, server, upkeep }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on not ready, but there for those who ask why.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Returns when the server fails; it does not stop by itself.
    pub async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.server).await {
            Ok(Ok(())) => anyhow::anyhow!("the HTTP server has stopped"),
            Ok(Err(error)) => anyhow::Error::new(error).context("the HTTP server failed"),
            Err(error) => anyhow::Error::new(error).context("the HTTP server failed"),
        }
    }

    /// Stops when the requests under way have ended; streams and waits end at once.
    pub async fn stop(self) -> anyhow::Result<()> {
        if let Some(api) = &self.api {
            api.watch().close();
        }
        self.stop.cancel();
        self.upkeep.abort();
        self.server.await??;
        Ok(())
    }
}

/// Binds, or says with what the command can be told another address.
pub async fn bind(address: SocketAddr, settings: &str) -> anyhow::Result<Server> {
    let choose =
        |error| anyhow::anyhow!("{address} can't be served: {error}\nChoose another with {settings}; port 0 takes any that is free");
    Server::bind(address).await.map_err(choose)
}

/// Readiness as the engine sees it.
struct OfEngine {
    engine: Engine,
    draining: CancellationToken,
}

#[async_trait::async_trait]
impl Readiness for OfEngine {
    async fn check(&self) -> Vec<Check> {
        let mut checks = match tokio::time::timeout(DATABASE_WITHIN, self.of_database()).await {
            Ok(checks) => checks,
            Err(_) => vec![Check::failed("database", "it does not answer")],
        };
        checks.extend(steps(&self.engine.step_threads()));
        if self.draining.is_cancelled() {
            checks.push(Check::failed("process", "it is stopping"));
        }
        checks
    }
}

impl OfEngine {
    async fn of_database(&self) -> Vec<Check> {
        match self.engine.check_schema().await {
            Ok(()) => {}
            Err(Error::Schema(problem)) => return vec![Check::ok("database"), Check::failed("schema", problem)],
            Err(error) => return vec![unreachable(&error)],
        }
        let queues = async { queues::queues(&mut *self.engine.pool().acquire().await?).await };
        match queues.await {
            Ok(queues) => vec![Check::ok("database"), Check::ok("schema"), workers(&queues)],
            Err(error) => vec![unreachable(&error)],
        }
    }
}

/// The route is open, and what a driver says may hold names of hosts and users: that goes to the log.
fn unreachable(error: &Error) -> Check {
    tracing::warn!(%error, "the database can't be reached");
    Check::failed("database", "it can't be reached")
}

/// Without workers runs are still accepted, and wait: worth knowing, but no reason to turn requests away.
fn workers(queues: &[queues::QueueView]) -> Check {
    let unserved: Vec<&str> =
        queues.iter().filter(|q| q.workers == 0 && q.ready_steps + q.ready_items > 0).map(|q| q.name.as_str()).collect();
    let check = Check::ok("workers");
    match (unserved.as_slice(), queues.iter().map(|q| q.workers).max()) {
        ([], None | Some(0)) => check.note("no worker is alive; nothing waits for one"),
        ([], Some(_)) => check,
        (unserved, _) => check.note(format!("steps wait on queues that no worker serves: {}", unserved.join(", "))),
    }
}

/// Where this process has workers: can they carry out steps?
fn steps(workers: &[StepThreads]) -> Option<Check> {
    let (sets, stuck) = workers.iter().fold((0, 0), |(sets, stuck), threads| (sets + threads.sets, stuck + threads.stuck));
    let check = match workers {
        [] => return None,
        workers if workers.iter().any(|threads| threads.exhausted) => Check::failed(
            "steps",
            "steps keep every step thread, the spare ones too; no more work is taken until this process is restarted",
        ),
        _ if stuck > 0 => Check::ok("steps").note(format!("steps keep all threads of {stuck} of {sets} sets; the log names them")),
        _ => Check::ok("steps"),
    };
    Some(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_not_ready_when_steps_keep_all_its_threads() {
        let threads = |stuck, exhausted| StepThreads { sets: 9, stuck, exhausted };
        assert_eq!(steps(&[]), None);
        assert_eq!(steps(&[threads(0, false)]), Some(Check::ok("steps")));
        let some = steps(&[threads(0, false), threads(1, false)]).expect("a check");
        assert!(some.ok && some.note.as_deref().is_some_and(|note| note.contains("1 of 18 sets")), "{some:?}");
        assert!(steps(&[threads(0, false), threads(9, true)]).is_some_and(|check| !check.ok));
    }

    fn queue(name: &str, ready: i64, workers: i64) -> queues::QueueView {
        queues::QueueView { name: name.into(), ready_steps: ready, ready_items: 0, leased: 0, timed: 0, oldest_ready_s: None, workers }
    }

    #[test]
    fn queues_without_workers_are_named_when_something_waits_on_them() {
        assert_eq!(workers(&[queue("default", 3, 1), queue("gpu", 0, 0)]), Check::ok("workers"));
        let note = workers(&[queue("default", 3, 1), queue("gpu", 2, 0)]);
        assert!(note.ok && note.note.as_deref().is_some_and(|n| n.contains("gpu") && !n.contains("default")), "{note:?}");
        let idle = workers(&[queue("default", 0, 0)]);
        assert!(idle.ok && idle.note.as_deref().is_some_and(|n| n.starts_with("no worker")), "{idle:?}");
    }
}
