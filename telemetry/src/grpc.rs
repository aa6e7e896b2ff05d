//! One span, one count and one duration per gRPC call, for every service of a server.
//!
//! The span carries the method and a short `request_id`; what services log of a call (they know its volume) is inside of
//! it, so all lines of one call can be found. Requests themselves are never looked at: they may hold secrets.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::http::{Request, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument as _;

/// Seconds: from a cached answer to what sidecars give up on.
const BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0,
];
/// What a call is counted under that names no method of ours, so that no client can make labels without end.
const UNKNOWN: &str = "unknown";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    service: String,
    method: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    service: String,
    method: String,
    code: &'static str,
}

#[derive(Debug)]
struct Inner {
    requests: Family<Outcome, Counter>,
    seconds: Family<Method, Histogram>,
    in_flight: Gauge,
    /// Request ids of one process start anywhere, so that those of a restarted one differ.
    next_id: AtomicU32,
}

/// Measures every call of the server it is a layer of: `Server::builder().layer(layer)`. Clones count together.
#[derive(Clone, Debug)]
pub struct GrpcLayer(Arc<Inner>);

impl GrpcLayer {
    /// Registers `vd_grpc_requests_total{service,method,code}`, `vd_grpc_request_seconds{service,method}` and
    /// `vd_grpc_in_flight`.
    pub fn register(registry: &mut Registry) -> Self {
        let inner = Inner {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            in_flight: Gauge::default(),
            next_id: AtomicU32::new(seed()),
        };
        registry.register(
            "grpc_requests",
            "gRPC calls that were answered, by code",
            inner.requests.clone(),
        );
        registry.register(
            "grpc_request_seconds",
            "How long gRPC calls took, in seconds",
            inner.seconds.clone(),
        );
        registry.register(
            "grpc_in_flight",
            "gRPC calls that run now",
            inner.in_flight.clone(),
        );
        Self(Arc::new(inner))
    }
}

impl<S> Layer<S> for GrpcLayer {
    type Service = Measured<S>;

    fn layer(&self, service: S) -> Measured<S> {
        Measured {
            service,
            inner: Arc::clone(&self.0),
        }
    }
}

/// A service whose calls are measured.
#[derive(Clone, Debug)]
pub struct Measured<S> {
    service: S,
    inner: Arc<Inner>,
}

impl<S, B, A> Service<Request<B>> for Measured<S>
where
    S: Service<Request<B>, Response = Response<A>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (service, method) = names(request.uri().path());
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("{id:08x}");
        let span = tracing::info_span!("call", request_id, method);
        let running = Running::new(Arc::clone(&self.inner), service, method);
        let answer = span.in_scope(|| self.service.call(request));
        Box::pin(
            async move {
                let answered = answer.await;
                running.end(match &answered {
                    Ok(response) => code(response),
                    Err(_broken_transport) => "Unknown",
                });
                answered
            }
            .instrument(span),
        )
    }
}

/// A call that runs. Dropped before its end, its client went away.
struct Running {
    inner: Arc<Inner>,
    method: Method,
    started: Instant,
    ended: Option<&'static str>,
}

impl Running {
    fn new(inner: Arc<Inner>, service: &str, method: &str) -> Self {
        inner.in_flight.inc();
        Self {
            inner,
            method: Method {
                service: service.to_owned(),
                method: method.to_owned(),
            },
            started: Instant::now(),
            ended: None,
        }
    }

    fn end(mut self, code: &'static str) {
        self.ended = Some(code);
    }

    fn count(&self, code: &'static str, elapsed: Duration) {
        let method = match code {
            "Unimplemented" => Method {
                service: UNKNOWN.to_owned(),
                method: UNKNOWN.to_owned(),
            },
            _ => self.method.clone(),
        };
        let outcome = Outcome {
            service: method.service.clone(),
            method: method.method.clone(),
            code,
        };
        self.inner.requests.get_or_create(&outcome).inc();
        let seconds = self.inner.seconds.get_or_create(&method);
        seconds.observe(elapsed.as_secs_f64());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (code, elapsed) = (self.ended.unwrap_or("Cancelled"), self.started.elapsed());
        self.inner.in_flight.dec();
        self.count(code, elapsed);
        // What a service answers it logs itself, with the object it is about; this line is for all the rest.
        if code != "OK" {
            let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            tracing::debug!(service = self.method.service, code, elapsed_ms, "failed");
        }
    }
}

/// `/csi.v1.Node/NodeStageVolume` is the method `NodeStageVolume` of the service `csi.v1.Node`.
fn names(path: &str) -> (&str, &str) {
    let named = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    named.unwrap_or((UNKNOWN, UNKNOWN))
}

/// The gRPC code of an answer. A failure is in its head; without one there it is a success, whose code follows the body.
fn code<A>(response: &Response<A>) -> &'static str {
    let status = response.headers().get("grpc-status");
    let number = status.and_then(|status| status.to_str().ok());
    match number {
        None | Some("0") => "OK",
        Some("1") => "Cancelled",
        Some("3") => "InvalidArgument",
        Some("4") => "DeadlineExceeded",
        Some("5") => "NotFound",
        Some("6") => "AlreadyExists",
        Some("7") => "PermissionDenied",
        Some("8") => "ResourceExhausted",
        Some("9") => "FailedPrecondition",
        Some("10") => "Aborted",
        Some("11") => "OutOfRange",
        Some("12") => "Unimplemented",
        Some("13") => "Internal",
        Some("14") => "Unavailable",
        Some("15") => "DataLoss",
        Some("16") => "Unauthenticated",
        Some(_) => "Unknown",
    }
}

fn seed() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.subsec_nanos() ^ std::process::id())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceBuilder, ServiceExt as _, service_fn};

    use super::*;

    fn shown(registry: &Registry) -> String {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, registry).expect("metrics");
        page
    }

    async fn call(layer: &GrpcLayer, path: &str, status: Option<&'static str>) {
        let service = ServiceBuilder::new()
            .layer(layer.clone())
            .service(service_fn(move |_request: Request<()>| async move {
                let mut response = Response::new(());
                if let Some(status) = status {
                    let status = ::http::HeaderValue::from_static(status);
                    response.headers_mut().insert("grpc-status", status);
                }
                Ok::<_, Infallible>(response)
            }));
        let request = Request::builder().uri(path).body(()).expect("request");
        service.oneshot(request).await.expect("answer");
    }

    #[tokio::test]
    async fn calls_are_counted_by_method_and_code() {
        let mut registry = Registry::with_prefix("vd");
        let layer = GrpcLayer::register(&mut registry);
        call(&layer, "/csi.v1.Node/NodeGetInfo", None).await;
        call(&layer, "/csi.v1.Node/NodeStageVolume", Some("10")).await;
        call(&layer, "/nobody/knows", Some("12")).await;
        let page = shown(&registry);
        for line in [
            "vd_grpc_requests_total{service=\"csi.v1.Node\",method=\"NodeGetInfo\",code=\"OK\"} 1",
            "vd_grpc_requests_total{service=\"csi.v1.Node\",method=\"NodeStageVolume\",code=\"Aborted\"} 1",
            "vd_grpc_requests_total{service=\"unknown\",method=\"unknown\",code=\"Unimplemented\"} 1",
            "vd_grpc_request_seconds_count{service=\"csi.v1.Node\",method=\"NodeGetInfo\"} 1",
            "vd_grpc_in_flight 0",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("nobody"), "{page}");
    }

    #[tokio::test]
    async fn a_call_whose_client_went_away_is_counted_as_cancelled() {
        let mut registry = Registry::with_prefix("vd");
        let layer = GrpcLayer::register(&mut registry);
        let never = service_fn(|_request: Request<()>| {
            std::future::pending::<Result<Response<()>, Infallible>>()
        });
        let mut service = ServiceBuilder::new().layer(layer).service(never);
        let request = Request::builder().uri("/a/b").body(()).expect("request");
        let running = service.call(request);
        assert!(shown(&registry).contains("vd_grpc_in_flight 1"));
        drop(running);
        let page = shown(&registry);
        assert!(page.contains("code=\"Cancelled\"} 1"), "{page}");
        assert!(page.contains("vd_grpc_in_flight 0"), "{page}");
    }
}
