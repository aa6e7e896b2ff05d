//! What stands between the program and the two it talks to, and cuts connections.
//!
//! A cut is what a lost machine or a broken network looks like: the connection ends, and no answer has come.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt as _;
use http::{HeaderMap, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::Client;
use kube::client::Body;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::{Channel, Endpoint};
use tower_service::Service as _;

use crate::cuts::{Cuts, When};

/// What the API server has said.
type Answer = UnsyncBoxBody<Bytes, kube::Error>;

/// A proxy. Its connections end with it.
pub struct Proxy<A> {
    pub address: A,
    accepting: JoinHandle<()>,
}

impl<A> Drop for Proxy<A> {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection, while its calls run.
#[derive(Clone)]
struct Connection {
    cuts: Arc<Cuts>,
    broken: Arc<Notify>,
}

impl Connection {
    fn new(cuts: &Arc<Cuts>) -> Self {
        Self {
            cuts: Arc::clone(cuts),
            broken: Arc::default(),
        }
    }

    /// Makes the cut of this run here.
    async fn cut(&self) -> Infallible {
        self.cuts.make().await;
        self.end().await
    }

    /// Ends the connection, and all calls on it.
    async fn end(&self) -> Infallible {
        self.broken.notify_one();
        std::future::pending().await
    }
}

/// Before an API server.
pub async fn before_api_server(to: Client, cuts: &Arc<Cuts>) -> Proxy<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cuts = Arc::clone(cuts);
    let accepting = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _peer) = listener.accept().await.unwrap();
            let (connection, to) = (Connection::new(&cuts), to.clone());
            let broken = Arc::clone(&connection.broken);
            let service =
                service_fn(move |request| ask_api_server(request, to.clone(), connection.clone()));
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            connections.spawn(async move {
                tokio::select! {
                    _ended = serving => {}
                    () = broken.notified() => {}
                }
            });
        }
    });
    Proxy { address, accepting }
}

async fn ask_api_server(
    request: Request<Incoming>,
    to: Client,
    connection: Connection,
) -> Result<Response<Answer>, Infallible> {
    let name = name_of(&request);
    let when = connection.cuts.arrived(name.clone());
    connection.cuts.until(false).await;
    if when == Some(When::Before) {
        match connection.cut().await {}
    }
    if request.method() != http::Method::GET {
        let write = format!("{} {}", request.method(), request.uri().path());
        if connection.cuts.is_late(write) {
            return Ok(conflict());
        }
    }
    let (mut head, body) = request.into_parts();
    // The client that forwards has an address and a user of its own.
    head.uri = head.uri.path_and_query().unwrap().as_str().parse().unwrap();
    for name in [header::HOST, header::AUTHORIZATION, header::CONTENT_LENGTH] {
        head.headers.remove(name);
    }
    let Ok(body) = body.collect().await else {
        match connection.end().await {}
    };
    let request = Request::from_parts(head, Body::from(body.to_bytes()));
    let Ok(mut answer) = to.send(request).await else {
        match connection.end().await {}
    };
    if when == Some(When::After) {
        match connection.cut().await {}
    }
    drop_framing(answer.headers_mut());
    if !name.starts_with("WATCH") {
        return Ok(answer.map(BodyExt::boxed_unsync));
    }
    // Ends as if its time were over, and not as if it were broken, when nothing gets through any more.
    let cuts = Arc::clone(&connection.cuts);
    let closed = Box::pin(async move { cuts.until(true).await });
    Ok(answer.map(|body| StreamBody::new(BodyStream::new(body).take_until(closed)).boxed_unsync()))
}

/// What the API server says to who was late.
fn conflict() -> Response<Answer> {
    let status = serde_json::json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "as the test wants", "reason": "Conflict", "code": 409,
    });
    let body = http_body_util::Full::from(status.to_string()).map_err(|never| match never {});
    Response::builder()
        .status(http::StatusCode::CONFLICT)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.boxed_unsync())
        .unwrap()
}

/// How long a body is, and how that is said, is between each two.
fn drop_framing(headers: &mut HeaderMap) {
    for name in [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
    ] {
        headers.remove(name);
    }
}

/// What is asked of which kind of object: `PATCH volumesnapshots/status`, `WATCH persistentvolumeclaims`.
fn name_of<B>(request: &Request<B>) -> String {
    let mut parts: Vec<&str> = request.uri().path().split('/').skip(1).collect();
    // /api/VERSION/... or /apis/GROUP/VERSION/...
    let prefix = if parts.first() == Some(&"api") { 2 } else { 3 };
    parts.drain(..prefix.min(parts.len()));
    if parts.first() == Some(&"namespaces") && parts.len() > 2 {
        parts.drain(..2);
    }
    let watches = request
        .uri()
        .query()
        .is_some_and(|query| query.contains("watch="));
    let verb = match (request.method().as_str(), parts.len()) {
        ("GET", 1) if watches => "WATCH",
        ("GET", 1) => "LIST",
        (verb, _) => verb,
    };
    match parts[..] {
        [kind] | [kind, _] => format!("{verb} {kind}"),
        [kind, _, part] => format!("{verb} {kind}/{part}"),
        _ => format!("{verb} {}", request.uri().path()),
    }
}

/// Before a driver's socket, with one of its own in the folder.
pub fn before_driver(socket: &Path, folder: &Path, cuts: &Arc<Cuts>) -> Proxy<PathBuf> {
    let address = folder.join("proxy.sock");
    let listener = UnixListener::bind(&address).unwrap();
    let to = Endpoint::from_shared(format!("unix://{}", socket.display()))
        .unwrap()
        .connect_lazy();
    let cuts = Arc::clone(cuts);
    let accepting = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _peer) = listener.accept().await.unwrap();
            let (connection, to) = (Connection::new(&cuts), to.clone());
            let broken = Arc::clone(&connection.broken);
            let service =
                service_fn(move |request| ask_driver(request, to.clone(), connection.clone()));
            let serving = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            connections.spawn(async move {
                tokio::select! {
                    _ended = serving => {}
                    () = broken.notified() => {}
                }
            });
        }
    });
    Proxy { address, accepting }
}

async fn ask_driver(
    request: Request<Incoming>,
    mut to: Channel,
    connection: Connection,
) -> Result<Response<tonic::body::Body>, Infallible> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default();
    let when = connection.cuts.arrived(method.to_owned());
    if when == Some(When::Before) {
        match connection.cut().await {}
    }
    let request = request.map(tonic::body::Body::new);
    let ready = std::future::poll_fn(|context| to.poll_ready(context)).await;
    let answer = match ready {
        Ok(()) => to.call(request).await,
        Err(error) => Err(error),
    };
    let Ok(answer) = answer else {
        match connection.end().await {}
    };
    if when == Some(When::After) {
        // The driver is done once it has said all.
        drop(answer.into_body().collect().await);
        match connection.cut().await {}
    }
    Ok(answer)
}
