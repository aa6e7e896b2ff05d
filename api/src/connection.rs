//! The connection to the API server: one that ends when there is nobody at the other end any more.
//!
//! The usual client of `kube` waits for the answer to a request without an end, and sleeps up to a quarter of an hour before it repeats
//! one for which the server had no time. A watch that begins while an API server goes down could so be deaf for minutes, and nobody would
//! know: whoever watches and hears nothing believes that nothing happens.

use std::time::Duration;

use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::timeout::TimeoutLayer;
use tower::{BoxError, ServiceBuilder};

/// How long the server may take until it begins to answer, to a watch too: it begins at once, also when nothing has happened.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a connection may take, all addresses of a name together. What TLS takes after it counts as waiting for an answer.
const CONNECT: Duration = Duration::from_secs(10);
/// After so much silence the other end is asked whether it is there, and then this often: a machine that lost its power says nothing, and
/// is noticed within 35 seconds. `client-go` takes 45.
const SILENCE: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_secs(5);
const TIMES: u32 = 3;
/// The shortest and the longest pause before a request is repeated for which the server had no time, and how often that is.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];
const REPEATED: u32 = 15;

/// A client for the API server. Nothing is connected yet, so it does not matter whether the server is there.
///
/// # Errors
/// When `config` names certificates, a user or headers that cannot be used; when it names a proxy.
pub fn client(config: &Config) -> kube::Result<Client> {
    if let Some(proxy) = &config.proxy_url {
        return Err(kube::Error::ProxyProtocolUnsupported {
            proxy_url: Box::new(proxy.clone()),
        });
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(SILENCE));
    connector.set_keepalive_interval(Some(AGAIN));
    connector.set_keepalive_retries(Some(TIMES));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let hyper = HyperClient::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let [shortest, longest] = PAUSES;
    let policy = RetryPolicy::new(shortest, longest, REPEATED, true)
        .map_err(|error| kube::Error::Service(error.into()))?;
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(ANSWER))
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .layer(RetryLayer::new(policy))
        .map_err(BoxError::from)
        .service(hyper);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}
