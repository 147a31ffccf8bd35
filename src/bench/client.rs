//! A server of the API in this process, and the least of a client: requests over connections that stay open, one after the other on each.

use super::ground::Ground;
use crate::operations::measure;
use anyhow::{Context, ensure};
use krowoc_api::{
    Api, Hosts, Served,
    auth::{Guard, hash},
    health::{Check, Readiness},
    limits::LimitsConfig,
    routes,
    server::Server,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "krw_measured_on_loopback";

/// The whole API on the ground's engine.
pub struct Serving {
    pub address: SocketAddr,
    api: Api,
    stop: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
}

struct Always;

#[async_trait::async_trait]
impl Readiness for Always {
    async fn check(&self) -> Vec<Check> {
        vec![]
    }
}

impl Serving {
    pub async fn start(ground: &Ground) -> anyhow::Result<Self> {
        let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let (address, api, stop) = (server.address(), Api::new(ground.engine.clone()), CancellationToken::new());
        let served = Served {
            api: api.clone(),
            guard: Guard::given(hash(TOKEN)),
            limits: LimitsConfig::default(),
            readiness: Arc::new(Always),
            metrics: measure()?,
            hosts: Hosts::Any,
        };
        let server = tokio::spawn(server.run(routes(served), stop.clone().cancelled_owned()));
        Ok(Self { address, api, stop, server })
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        self.api.watch().close();
        self.stop.cancel();
        Ok(self.server.await??)
    }
}

/// A connection that is asked again and again.
pub struct Client {
    stream: BufReader<TcpStream>,
    line: String,
    body: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), line: String::new(), body: Vec::new() })
    }

    /// The body of an answer, which must have the status.
    pub async fn ask(&mut self, method: &str, path: &str, body: &str, status: &str) -> anyhow::Result<&[u8]> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).await?;
        let (mut length, mut answered) = (None, None);
        loop {
            self.line.clear();
            self.stream.read_line(&mut self.line).await?;
            let line = self.line.trim_end();
            ensure!(!self.line.is_empty(), "the connection was closed");
            match line.split_once(':') {
                _ if line.is_empty() => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = Some(value.trim().parse()?),
                Some(_) => {}
                None => answered = line.split(' ').nth(1).map(str::to_owned),
            }
        }
        self.body.resize(length.context("an answer without a length")?, 0);
        self.stream.read_exact(&mut self.body).await?;
        let text = || String::from_utf8_lossy(&self.body).into_owned();
        ensure!(answered.as_deref() == Some(status), "{method} {path} was answered {answered:?}: {}", text());
        Ok(&self.body)
    }
}
