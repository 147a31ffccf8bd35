//! A loopback server that does exactly what a test says, down to the byte, and remembers what it was asked.

#![allow(dead_code, reason = "each test file uses its own part")]

use krowoc_engine::{
    RunId,
    executor::{StepContext, StepError, StepKinds, StepOutput},
};
use krowoc_steps::{Secret, StepsConfig, kinds};
use serde_json::Value;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// What a server does with a request.
pub enum Reply {
    /// Sends these bytes and closes.
    Raw(Vec<u8>),
    /// Sends these bytes and never anything more.
    Hang(Vec<u8>),
    /// Sends this status and a body of zeros without end (a gigabyte).
    Endless(u16),
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Request line and headers, names in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Seen {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// The server.
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Bytes of endless bodies that went out.
    pub sent: Arc<AtomicU64>,
    /// A client went away while the server hung.
    pub dropped: Arc<Notify>,
    /// A request has come in.
    pub arrived: Arc<Notify>,
}

impl Server {
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Self {
            address: listener.local_addr().expect("an address"),
            seen: Arc::default(),
            sent: Arc::default(),
            dropped: Arc::default(),
            arrived: Arc::default(),
        };
        let (script, seen, sent) = (Arc::new(script), server.seen.clone(), server.sent.clone());
        let (dropped, arrived) = (server.dropped.clone(), server.arrived.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, seen, sent) = (script.clone(), seen.clone(), sent.clone());
                let (dropped, arrived) = (dropped.clone(), arrived.clone());
                tokio::spawn(async move {
                    let mut stream = stream;
                    let Some(request) = request(&mut stream).await else { return };
                    let reply = script(&request);
                    seen.lock().expect("not poisoned").push(request);
                    arrived.notify_one();
                    answer(stream, reply, &sent, &dropped).await;
                });
            }
        });
        server
    }

    /// Answers every request with one status, headers and body.
    pub async fn fixed(status: u16, headers: &str, body: &str) -> Self {
        let reply = reply(status, headers, body);
        Self::start(move |_| Reply::Raw(reply.clone())).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

/// A whole response. `headers` are lines that end with `\r\n`.
pub fn reply(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lower = |line: &str| line.split_once(": ").map_or(line.to_owned(), |(name, value)| format!("{}: {value}", name.to_lowercase()));
        let seen = Seen { head: head.lines().map(lower).collect::<Vec<_>>().join("\n"), body: body.to_owned() };
        let length: usize = seen.header("content-length").map_or(0, |l| l.parse().expect("a number"));
        if body.len() >= length {
            return Some(seen);
        }
    }
}

async fn answer(mut stream: TcpStream, reply: Reply, sent: &AtomicU64, dropped: &Notify) {
    match reply {
        Reply::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Reply::Hang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
            dropped.notify_one();
        }
        Reply::Endless(status) => {
            let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let zeros = vec![b'0'; 64 << 10];
            while sent.load(Ordering::SeqCst) < 1 << 30 && stream.write_all(&zeros).await.is_ok() {
                sent.fetch_add(zeros.len() as u64, Ordering::SeqCst);
            }
        }
    }
}

/// The key that tests use.
pub const KEY: &str = "sk-test-0123456789abcdef";

/// Kinds whose `openai` provider is at a server.
pub fn kinds_at(server: &Server) -> StepKinds {
    kinds(StepsConfig {
        openai_api_key: Some(Secret::new(KEY)),
        openai_base_url: Some(server.url("/v1").parse().expect("a base URL")),
        allow_private_addresses: true,
        ..StepsConfig::default()
    })
}

/// A first attempt.
pub fn context() -> StepContext {
    StepContext {
        run: RunId::new(),
        path: "step".into(),
        attempt: 1,
        cancelled: Default::default(),
        output_schema: None,
        prompts: Default::default(),
        idle_timeout: None,
    }
}

/// The same with an output schema.
pub fn context_with(schema: Value) -> StepContext {
    StepContext { output_schema: Some(Arc::new(schema)), ..context() }
}

/// One attempt of a kind.
pub async fn execute(kinds: &StepKinds, kind: &str, context: &StepContext, config: Value) -> Result<StepOutput, StepError> {
    kinds.get(kind).expect("a known kind").execute(context, config).await
}

/// The output as JSON.
pub fn output(output: &StepOutput) -> Value {
    output.output.parse().expect("JSON")
}
