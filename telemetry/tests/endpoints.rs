//! The real server, asked over a real connection.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use telemetry::http::{Endpoints, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn get(server: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn probes_follow_what_the_program_says_and_metrics_are_open_metrics() {
    let ready = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&ready);
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = server.address().unwrap();
    let endpoints = Endpoints {
        registry: telemetry::registry("test", "0.1.0"),
        healthy: Box::new(|| Ok(())),
        ready: Box::new(move || {
            let ready = asked.load(Ordering::SeqCst);
            ready.then_some(()).ok_or("the disk is away".to_owned())
        }),
    };
    let serving = tokio::spawn(server.run(endpoints));
    let away = get(address, "/readyz").await;
    assert!(away.starts_with("HTTP/1.1 503"), "{away}");
    assert!(away.ends_with("the disk is away\n"), "{away}");
    ready.store(true, Ordering::SeqCst);
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/healthz").await.ends_with("ok\n"));
    let metrics = get(address, "/metrics").await;
    assert!(
        metrics.contains("application/openmetrics-text"),
        "{metrics}"
    );
    assert!(
        metrics.contains("vd_build_info{program=\"test\",version=\"0.1.0\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("vd_process_resident_bytes "), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    serving.abort();
}

#[tokio::test]
async fn all_addresses_are_those_of_both_families() {
    let server = Server::bind("[::]:0".parse().unwrap()).await.unwrap();
    let port = server.address().unwrap().port();
    let endpoints = Endpoints {
        registry: telemetry::registry("test", "0.1.0"),
        healthy: Box::new(|| Ok(())),
        ready: Box::new(|| Ok(())),
    };
    let serving = tokio::spawn(server.run(endpoints));
    for host in ["127.0.0.1", "[::1]"] {
        let answer = get(format!("{host}:{port}").parse().unwrap(), "/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
    }
    serving.abort();
}
