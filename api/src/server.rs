//! Serving HTTP: bound first, so that a taken port is an error before anything else starts, and stopped in good order. Connections are bounded
//! in number and in patience: a head that does not come, and a reader that does not read, give their places to others.

use futures::future::{Either, select};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use poem::{
    Addr, Endpoint, EndpointExt, IntoEndpoint, Response,
    http::{Request, uri::Scheme},
    web::{LocalAddr, RemoteAddr},
};
use std::{convert::Infallible, future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Requests that run when the server is told to stop may take so long.
const LAST_REQUESTS: Duration = Duration::from_secs(10);
/// A request's head may take so long, and a connection on which none comes is closed after as long.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// A reader that takes nothing for so long, though there is something to take, is given up.
const READS_WITHIN: Duration = Duration::from_secs(60);
/// Connections at once; beyond them the system lets others wait. Below the file descriptors that processes commonly have.
const CONNECTIONS: usize = 8192;
/// Streams on one connection of HTTP/2.
const STREAMS: u32 = 128;
/// When the system has no room for another connection, one that ends makes some.
const NO_ROOM: Duration = Duration::from_millis(100);

/// A bound server.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds; port 0 takes any that is free.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
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
        let endpoint = Arc::new(endpoint.into_endpoint().map_to_response());
        let (stopping, cut, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let accept = async {
            loop {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                match self.listener.accept().await {
                    Ok((stream, peer)) => {
                        let connection = connection(stream, self.address, peer, endpoint.clone(), stopping.clone());
                        let cut = cut.clone();
                        tasks.spawn(async move {
                            let _place = place;
                            cut.run_until_cancelled_owned(connection).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(NO_ROOM).await;
                    }
                }
            }
        };
        select(pin!(stop), pin!(accept)).await;
        drop(self.listener);
        stopping.cancel();
        tasks.close();
        if tokio::time::timeout(LAST_REQUESTS, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "requests that have not ended are cut off");
            cut.cancel();
            tasks.wait().await;
        }
        Ok(())
    }
}

/// One connection, until its end; once the server stops, until the request under way has ended.
async fn connection<E>(stream: TcpStream, here: SocketAddr, peer: SocketAddr, endpoint: Arc<E>, stopping: CancellationToken)
where
    E: Endpoint<Output = Response> + 'static,
{
    // An answer is small or written at once: waiting to fill a packet only delays it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection waits to fill its packets");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(READS_WITHIN));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let endpoint = endpoint.clone();
        async move {
            let (local, remote) = (LocalAddr(Addr::SocketAddr(here)), RemoteAddr(Addr::SocketAddr(peer)));
            let answer = endpoint.get_response((request, local, remote, Scheme::HTTP).into()).await;
            Ok::<_, Infallible>(hyper::Response::from(answer))
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_WITHIN).max_concurrent_streams(STREAMS);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(Box::pin(stream)), service));
    let ended = match select(connection.as_mut(), pin!(stopping.cancelled())).await {
        Either::Left((ended, _)) => ended,
        Either::Right(_) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "a connection broke off");
    }
}
