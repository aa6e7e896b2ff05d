//! The client, and API servers that fall silent.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::pin::pin;
use std::time::Duration;

use api::LocalPool;
use futures::StreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Config};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// The longest wait for the beginning of an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// A server, and a client of it.
async fn server() -> (TcpListener, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let client = api::client(&Config::new(address.parse().unwrap())).unwrap();
    (listener, client)
}

/// Reads a request, and gives its first line.
async fn request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let request = String::from_utf8(request).unwrap();
    request.lines().next().unwrap().to_owned()
}

async fn answer(stream: &mut TcpStream, status: &str, body: &str) {
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

fn list() -> String {
    let metadata = serde_json::json!({"resourceVersion": "7"});
    let list = serde_json::json!({
        "apiVersion": "vd.csi.io/v1alpha1", "kind": "LocalPoolList", "metadata": metadata, "items": [],
    });
    list.to_string()
}

#[tokio::test(start_paused = true)]
async fn a_watch_whose_beginning_is_never_answered_is_begun_anew() {
    let (listener, client) = server().await;
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(!request(&mut stream).await.contains("watch"));
        answer(&mut stream, "200 OK", &list()).await;
        let watch = request(&mut stream).await;
        assert!(watch.contains("watch=true"), "{watch}");
        // It is not answered, and the connection stays. Whoever was given up asks again.
        let (mut other, _) = listener.accept().await.unwrap();
        assert!(!request(&mut other).await.contains("watch"));
        answer(&mut other, "200 OK", &list()).await;
        (stream, other, listener)
    });
    let api = Api::<LocalPool>::all(client);
    let mut events = pin!(api::watching(api, watcher::Config::default()));
    let mut next = async || events.next().await.unwrap();
    assert!(matches!(next().await, Ok(Event::Init)));
    assert!(matches!(next().await, Ok(Event::InitDone)));
    let begun = Instant::now();
    let error = next().await.unwrap_err().to_string();
    assert!(error.contains("start watching"), "{error}");
    assert_eq!(begun.elapsed().as_secs(), ANSWER.as_secs());
    assert!(matches!(next().await, Ok(Event::Init)));
    assert!(matches!(next().await, Ok(Event::InitDone)));
    asked.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_no_time_is_asked_again_and_not_for_longer_than_any_other() {
    let (listener, client) = server().await;
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _time in 0..3 {
            let _list = request(&mut stream).await;
            answer(&mut stream, "429 Too Many Requests", "").await;
        }
        let _list = request(&mut stream).await;
        answer(&mut stream, "200 OK", &list()).await;
        loop {
            let _list = request(&mut stream).await;
            answer(&mut stream, "503 Service Unavailable", "").await;
        }
    });
    let api = Api::<LocalPool>::all(client);
    let all = api.list(&kube::api::ListParams::default()).await.unwrap();
    assert!(all.items.is_empty());
    let begun = Instant::now();
    let _refused = api
        .list(&kube::api::ListParams::default())
        .await
        .unwrap_err();
    assert!(begun.elapsed() <= ANSWER, "{:?}", begun.elapsed());
    asked.abort();
}

/// The machine at the other end may lose its power: nothing comes from it then, and a watch waits for nothing else.
#[tokio::test]
async fn a_connection_that_is_silent_asks_whether_the_other_end_is_there() {
    let (listener, client) = server().await;
    let port = listener.local_addr().unwrap().port();
    let waits = tokio::spawn(async move {
        let api = Api::<LocalPool>::all(client);
        api.list(&kube::api::ListParams::default()).await
    });
    let (mut stream, _) = listener.accept().await.unwrap();
    let _list = request(&mut stream).await;
    let mut timer = timer_of_client(port);
    // Until the kernel has heard that the request has arrived, it runs the timer for sending it again.
    while timer.starts_with("01:") {
        tokio::task::yield_now().await;
        timer = timer_of_client(port);
    }
    // In hundredths of a second. The kernel's own choice is two hours.
    let left = timer.strip_prefix("02:").expect("keepalive");
    let left = u64::from_str_radix(left, 16).unwrap();
    assert!(left <= 20 * 100, "{left}");
    waits.abort();
}

/// The timer that runs for the connection to this port: 1 is for sending again, 2 for asking whether the other end is there.
fn timer_of_client(port: u16) -> String {
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let other_end = format!("0100007F:{port:04X}");
    // The third column is the address of the other end, the sixth the timer.
    let timer = connections.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        (columns[2] == other_end).then(|| columns[5].to_owned())
    });
    timer.unwrap()
}
