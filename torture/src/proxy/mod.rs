//! Stands between processes and a server: everything is passed on, until a scenario has the way lead elsewhere or connections cut.

mod carry;
pub mod cuts;
pub mod wire;

pub use cuts::{Cut, Cuts, Side};

use anyhow::{Context, Result};
use krowoc_postgres::DATABASE;
use sqlx::postgres::PgConnectOptions;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};
use tokio::{
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
};

/// A port of this machine that leads to a server. Dropped, it cuts every connection.
pub struct Proxy {
    address: SocketAddr,
    /// The server's socket. Whoever came through to another is cut.
    leads_to: watch::Sender<PathBuf>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// Before the server of a URL, which names the folder of its socket; with cuts to be made, if there are any.
    pub async fn before(url: &str, cuts: Option<Arc<Cuts>>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a port for a proxy")?;
        let address = listener.local_addr()?;
        let leads_to = watch::Sender::new(socket(url)?);
        let way = leads_to.clone();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connect(client, way.subscribe(), cuts.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, leads_to, _accepting: accepting })
    }

    /// The URL of a database through it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{DATABASE}@{}/{database}?sslmode=disable", self.address)
    }

    /// Leads to another server from now on; connections to the one before are cut.
    pub fn lead_to(&self, url: &str) -> Result<()> {
        self.leads_to.send_replace(socket(url)?);
        Ok(())
    }
}

/// The socket of a server that listens in a folder.
fn socket(url: &str) -> Result<PathBuf> {
    let options = PgConnectOptions::from_str(url)?;
    let folder: &Path = options.get_socket().context("a proxy leads to a server that listens in a folder")?;
    Ok(folder.join(format!(".s.PGSQL.{}", options.get_port())))
}

/// One that finds no server, or whose server goes away, ends; its client sees that.
async fn connect(mut client: TcpStream, mut way: watch::Receiver<PathBuf>, cuts: Option<Arc<Cuts>>) {
    let socket = way.borrow_and_update().clone();
    let Ok(mut server) = UnixStream::connect(socket).await else { return };
    let carried = async {
        client.set_nodelay(true)?;
        match &cuts {
            Some(cuts) => carry::carry(cuts, &mut client, &mut server).await,
            None => tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop),
        }
    };
    tokio::select! {
        _ = way.changed() => {}
        ended = carried => drop(ended.inspect_err(|error| tracing::debug!(%error, "a connection ended"))),
    }
}
