//! The HTTP side: `/metrics`, `/healthz`, `/readyz`. Plain HTTP/1.1 for probes and Prometheus on the pod network.
//!
//! Nothing a client does can hurt the program: only `GET` and `HEAD` are served, bodies are not read, a slow client is
//! hung up on, and only so many are heard at once.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use ::http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How many clients are heard at once; others wait in the kernel's queue.
const CLIENTS: usize = 32;
/// How long a client may take to say what it wants, also on a connection that is kept open. Prometheus comes every 15 to
/// 60 s and simply connects again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long accepting rests after it failed (no descriptors left).
const REST: Duration = Duration::from_millis(100);

/// How many clients may wait in the kernel's queue.
const QUEUE: i32 = 1024;
/// The kernel's "address family not supported".
const EAFNOSUPPORT: i32 = 97;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Answers whether something holds; if not, why, in one line for a person. It is called for each probe, so it must be
/// cheap and must not block.
pub type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What is served.
pub struct Endpoints {
    /// What `/metrics` shows.
    pub registry: Registry,
    /// `/healthz`: false means that only a restart helps.
    pub healthy: Check,
    /// `/readyz`: false means that it cannot do its work now.
    pub ready: Check,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Endpoints")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// An address that is listened on; nobody is answered before [`Server::run`].
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Listens at `address`. Port 0 takes a free one: see [`Server::address`]. `[::]` stands for all addresses of both
    /// families, whichever of them there are: a pod does not know which kind its own is.
    ///
    /// # Errors
    /// The kernel's, e.g. that the port is taken.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = match address {
            SocketAddr::V6(all) if all.ip().is_unspecified() => {
                of_both_families(address, dual_stack).await?
            }
            _ => TcpListener::bind(address).await?,
        };
        Ok(Self { listener })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The kernel's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the future is dropped.
    pub async fn run(self, endpoints: Endpoints) -> Infallible {
        let endpoints = Arc::new(endpoints);
        let clients = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let permit = Arc::clone(&clients).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, _client)) => {
                    let endpoints = Arc::clone(&endpoints);
                    tokio::spawn(async move {
                        let _permit = permit;
                        connection(stream, endpoints).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics and probes");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

/// Listens with `dual_stack`, or for IPv4 alone where the kernel has no IPv6.
async fn of_both_families(
    address: SocketAddr,
    dual_stack: impl FnOnce(SocketAddr) -> io::Result<TcpListener>,
) -> io::Result<TcpListener> {
    match dual_stack(address) {
        Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        listening => listening,
    }
}

/// A listener that IPv4 reaches too, whatever the node's default (`net.ipv6.bindv6only`) is.
fn dual_stack(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(QUEUE)?;
    TcpListener::from_std(socket.into())
}

async fn connection(stream: TcpStream, endpoints: Arc<Endpoints>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &endpoints);
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a client of metrics or probes went away");
    }
}

fn answer(method: &Method, path: &str, endpoints: &Endpoints) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut refused = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET is served\n".into(),
        );
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => metrics(&endpoints.registry),
        "/healthz" => check(&endpoints.healthy),
        "/readyz" => check(&endpoints.ready),
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n".into(),
        ),
    }
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut page = String::new();
    match prometheus_client::encoding::text::encode(&mut page, registry) {
        Ok(()) => respond(StatusCode::OK, OPEN_METRICS, page),
        Err(error) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the metrics cannot be written: {error}\n"),
        ),
    }
}

fn check(check: &Check) -> Response<Full<Bytes>> {
    match check() {
        Ok(()) => text(StatusCode::OK, "ok\n".into()),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    respond(status, TEXT, body)
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> Endpoints {
        Endpoints {
            registry: crate::registry("test", "0.1.0"),
            healthy: Box::new(|| Ok(())),
            ready: Box::new(|| Err("the pool is not mounted".to_owned())),
        }
    }

    fn get(path: &str) -> StatusCode {
        answer(&Method::GET, path, &endpoints()).status()
    }

    #[test]
    fn health_and_readiness_are_told_apart() {
        assert_eq!(get("/healthz"), StatusCode::OK);
        assert_eq!(get("/readyz"), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get("/metrics"), StatusCode::OK);
        assert_eq!(get("/"), StatusCode::NOT_FOUND);
        assert_eq!(get("/metrics/../healthz"), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn without_ipv6_it_listens_for_ipv4() {
        let without = |_address| Err(io::Error::from_raw_os_error(EAFNOSUPPORT));
        let listener = of_both_families("[::]:0".parse().unwrap(), without).await;
        let listener = listener.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(address.ip(), Ipv4Addr::UNSPECIFIED);
        TcpStream::connect((Ipv4Addr::LOCALHOST, address.port()))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_refused_and_not_taken_for_the_other_family() {
        let taken = Server::bind("[::]:0".parse().unwrap()).await.unwrap();
        let again = Server::bind(taken.address().unwrap()).await;
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn nothing_can_be_sent_to_it() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::CONNECT] {
            let refused = answer(&method, "/healthz", &endpoints());
            assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        }
    }
}
