//! Stands between a worker and its database, and does to their connections what networks and failing servers do.

use sqlx::postgres::PgConnectOptions;
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixListener, UnixStream},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

/// A socket in a folder of its own. Dropped, it cuts every connection.
pub struct Proxy {
    folder: PathBuf,
    wire: Arc<Wire>,
    _accepting: AbortOnDropHandle<()>,
}

struct Wire {
    server: PgConnectOptions,
    accepted: AtomicU64,
    /// Connections before this one are cut.
    cut: watch::Sender<u64>,
    /// Connections before this one stay open, and nothing passes through them.
    silent: watch::Sender<u64>,
    /// A connection over which this text is sent to the server is cut, so many times.
    trap: Mutex<(String, usize)>,
    /// The connection over which this text is sent next is cut when the server answers: it has done what it was asked, and nobody hears of it.
    unheard: Mutex<Option<String>>,
    deaf: AtomicU64,
}

const NOBODY: u64 = u64::MAX;

impl Proxy {
    /// Before the server that these options lead to.
    pub fn before(server: PgConnectOptions) -> Self {
        let folder = std::env::temp_dir().join(format!("krowoc-proxy-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).expect("a folder");
        let listener = UnixListener::bind(folder.join(format!(".s.PGSQL.{}", server.get_port()))).expect("a socket");
        let wire = Arc::new(Wire {
            server,
            accepted: AtomicU64::new(0),
            cut: watch::Sender::new(0),
            silent: watch::Sender::new(0),
            trap: Mutex::default(),
            unheard: Mutex::default(),
            deaf: AtomicU64::new(NOBODY),
        });
        let accepting = {
            let wire = wire.clone();
            tokio::spawn(async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    connections.spawn(wire.clone().connect(client));
                }
            })
        };
        Self { folder, wire, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// How to connect through it.
    pub fn options(&self) -> PgConnectOptions {
        self.wire.server.clone().socket(&self.folder)
    }

    /// Cuts the connections there are.
    pub fn cut(&self) {
        self.wire.cut.send_replace(self.wire.accepted.load(SeqCst));
    }

    /// The connections there are hear nothing more; new ones work.
    pub fn silence(&self) {
        self.wire.silent.send_replace(self.wire.accepted.load(SeqCst));
    }

    /// Nobody hears anything more.
    pub fn silence_all(&self) {
        self.wire.silent.send_replace(u64::MAX);
    }

    /// Cuts a connection over which a text is sent, so many times.
    pub fn cut_on(&self, text: &str, times: usize) {
        *self.wire.trap.lock().expect("not poisoned") = (text.to_owned(), times);
    }

    /// Cuts the next connection over which a text is sent, but only when the server has answered.
    pub fn cut_after(&self, text: &str) {
        *self.wire.unheard.lock().expect("not poisoned") = Some(text.to_owned());
    }

    /// Has that happened?
    pub fn has_cut_after(&self) -> bool {
        self.wire.unheard.lock().expect("not poisoned").is_none()
    }

    /// How many such cuts are still to come.
    pub fn cuts_left(&self) -> usize {
        self.wire.trap.lock().expect("not poisoned").1
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Wire {
    async fn connect(self: Arc<Self>, client: UnixStream) {
        let number = self.accepted.fetch_add(1, SeqCst);
        match self.server.get_socket() {
            Some(folder) => {
                let path = folder.join(format!(".s.PGSQL.{}", self.server.get_port()));
                self.pass(number, client, UnixStream::connect(path).await.expect("the server")).await;
            }
            None => {
                let address = (self.server.get_host(), self.server.get_port());
                self.pass(number, client, TcpStream::connect(address).await.expect("the server")).await;
            }
        }
    }

    async fn pass(&self, number: u64, client: UnixStream, server: impl AsyncRead + AsyncWrite) {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = tokio::io::split(server);
        let mut cut = self.cut.subscribe();
        tokio::select! {
            _ = cut.wait_for(|before| number < *before) => {}
            () = self.carry(number, &mut from_client, &mut to_server, true) => {}
            () = self.carry(number, &mut from_server, &mut to_client, false) => {}
        }
    }

    async fn carry(&self, number: u64, from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), trapped: bool) {
        let mut silent = self.silent.subscribe();
        let mut bytes = vec![0; 1 << 16];
        loop {
            let n = match from.read(&mut bytes).await {
                Ok(n) if n > 0 => n,
                _ => return,
            };
            if trapped && self.falls_into_trap(&bytes[..n]) {
                return;
            }
            if trapped {
                self.listen_no_more(number, &bytes[..n]);
            } else if self.deaf.load(SeqCst) == number {
                return;
            }
            let _ = silent.wait_for(|before| number >= *before).await;
            if to.write_all(&bytes[..n]).await.is_err() {
                return;
            }
        }
    }

    fn listen_no_more(&self, number: u64, bytes: &[u8]) {
        let mut unheard = self.unheard.lock().expect("not poisoned");
        if unheard.take_if(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes())).is_some() {
            self.deaf.store(number, SeqCst);
        }
    }

    fn falls_into_trap(&self, bytes: &[u8]) -> bool {
        let mut trap = self.trap.lock().expect("not poisoned");
        let (text, times) = &mut *trap;
        let falls = *times > 0 && bytes.windows(text.len()).any(|window| window == text.as_bytes());
        *times -= usize::from(falls);
        falls
    }
}
