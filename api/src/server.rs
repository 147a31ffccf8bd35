//! Serving HTTP: bound first, so that a taken port is an error before anything else starts, and stopped in good order.

use poem::{
    Endpoint, IntoEndpoint, Server as Poem,
    listener::{Acceptor, Listener, TcpAcceptor, TcpListener},
};
use std::{future::Future, io, net::SocketAddr, time::Duration};

/// Requests that run when the server is told to stop may take so long.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// A bound server.
pub struct Server {
    acceptor: TcpAcceptor,
    address: SocketAddr,
}

impl Server {
    /// Binds; port 0 takes any that is free.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let acceptor = TcpListener::bind(address).into_acceptor().await?;
        let bound = acceptor.local_addr().into_iter().find_map(|local| local.0.as_socket_addr().copied());
        Ok(Self { acceptor, address: bound.unwrap_or(address) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` completes and the requests under way have ended.
    pub async fn run<E>(self, endpoint: impl IntoEndpoint<Endpoint = E>, stop: impl Future<Output = ()>) -> io::Result<()>
    where
        E: Endpoint + 'static,
    {
        Poem::new_with_acceptor(self.acceptor).run_with_graceful_shutdown(endpoint, stop, Some(LAST_REQUESTS)).await
    }
}
