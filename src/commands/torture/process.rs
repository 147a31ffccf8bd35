//! A process of `krowoc torture`: a worker, a server or a client like any other, but with the kind `ledger`, and it may have been told where to
//! die. Its orders come on standard input, so that nothing else can turn a process into one of these.

use crate::{
    commands::{serve::Serve, worker::Worker},
    config::{Config, Database},
    database::Session,
};
use clap::Args;
use krowoc_engine::Scope;
use krowoc_torture::process::{Errand, Orders, Report, Role, client};
use std::{net::SocketAddr, process::ExitCode, time::Duration};

#[derive(Args)]
#[command(after_help = "`krowoc torture` starts it.")]
pub struct TortureProcess {}

/// How long a worker's steps may take after a request to stop.
const DRAIN: Duration = Duration::from_secs(5);

impl TortureProcess {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        match Errand::take()? {
            Errand::Process(orders) => obey(orders, config).await,
            Errand::Keeper(belongings) => {
                belongings.keep().await?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

async fn obey(orders: Orders, config: &Config) -> anyhow::Result<ExitCode> {
    orders.obey()?;
    let kinds = orders.kinds(config.step_kinds())?;
    let mut config = Config { database: Database::Given(orders.url.clone()), listen_url: orders.listen.clone(), ..config.clone() };
    let report = match orders.role.clone() {
        Role::Worker { concurrency, lease } => {
            let (queues, name) = (vec!["default".into()], Some(orders.name.clone()));
            let worker = Worker { queues, concurrency, lease, drain: DRAIN, completers: 2, name, bind: None };
            Report::of(&*worker.work(&config, kinds).await?)
        }
        Role::Server { reap_every, keep_runs } => {
            config.keep_runs = keep_runs;
            let bind = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
            Serve { bind }.serve(&config, kinds, reap_every).await?;
            Report::default()
        }
        Role::Client { jobs } => {
            let session = Session::open_with(&config, kinds).await?;
            let done = client::work(&session.engine, &Scope::local("torture"), &jobs).await;
            session.close().await?;
            done?;
            Report::default()
        }
    };
    report.write(&orders.report)?;
    Ok(ExitCode::SUCCESS)
}
