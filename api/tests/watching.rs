//! What an API server asks of those who watch it: one that was restored, and one that is in trouble.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::LocalPool;
use futures::{Stream, StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use kube::client::Body;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn after_an_error_everything_is_listed_again_and_without_one_nothing_is() {
    let lists = Mutex::new(vec![
        vec![
            Ok(Event::Init),
            Ok(Event::InitApply("list 1")),
            Ok(Event::InitDone),
            Ok(Event::Apply("change")),
            Err("gone"),
            Ok(Event::Apply("never told")),
        ],
        vec![Ok(Event::Init), Err("refused")],
        vec![
            Ok(Event::Init),
            Ok(Event::InitApply("list 3")),
            Ok(Event::InitDone),
            Ok(Event::Delete("change")),
        ],
    ]);
    let watch = api::begin_anew(|| stream::iter(lists.lock().unwrap().remove(0)));
    let told: Vec<_> = watch
        .map(|event| match event {
            Ok(Event::Init) => "begun",
            Ok(Event::InitDone) => "whole",
            Ok(Event::InitApply(what) | Event::Apply(what) | Event::Delete(what)) => what,
            Err(error) => error,
        })
        .collect()
        .await;
    assert_eq!(
        told,
        [
            "begun", "list 1", "whole", "change", "gone", "begun", "refused", "begun", "list 3",
            "whole", "change"
        ]
    );
}

/// What an API server says to lists and to watches.
#[derive(Clone, Copy, Debug)]
enum Mood {
    RefusesAll,
    RefusesWatches,
    Works,
}

/// An API server without objects, and when it was asked for a list.
#[derive(Clone)]
struct Server(Arc<Mutex<(Mood, Vec<Instant>)>>);

impl Server {
    fn new(mood: Mood) -> Self {
        Self(Arc::new(Mutex::new((mood, Vec::new()))))
    }

    fn becomes(&self, mood: Mood) {
        self.0.lock().unwrap().0 = mood;
    }

    /// The lists since this was last asked.
    fn lists(&self) -> Vec<Instant> {
        std::mem::take(&mut self.0.lock().unwrap().1)
    }

    fn watched(&self) -> impl Stream<Item = watcher::Result<Event<LocalPool>>> {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            let is_watch = request.uri().query().unwrap_or("").contains("watch=");
            async move { Ok::<_, Infallible>(server.answer(is_watch).await) }
        });
        let pools: Api<LocalPool> = Api::all(Client::new(service, "default"));
        api::watching(pools, watcher::Config::default())
    }

    async fn answer(&self, is_watch: bool) -> Response<Body> {
        let mood = {
            let mut state = self.0.lock().unwrap();
            if !is_watch {
                state.1.push(Instant::now());
            }
            state.0
        };
        match (mood, is_watch) {
            (Mood::RefusesAll, _) => said(StatusCode::SERVICE_UNAVAILABLE, "try again"),
            (Mood::RefusesWatches, true) => said(StatusCode::TOO_MANY_REQUESTS, "try again"),
            // Nothing happens, until it is in another mood.
            (Mood::Works, true) => loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if !matches!(self.0.lock().unwrap().0, Mood::Works) {
                    return said(StatusCode::SERVICE_UNAVAILABLE, "shutting down");
                }
            },
            (_, false) => said(
                StatusCode::OK,
                r#"{"apiVersion": "vd.csi.io/v1alpha1", "kind": "LocalPoolList", "metadata": {"resourceVersion": "7"}, "items": []}"#,
            ),
        }
    }
}

fn said(status: StatusCode, text: &'static str) -> Response<Body> {
    let body = Body::from(text.as_bytes().to_vec());
    Response::builder().status(status).body(body).unwrap()
}

/// Everything that is told in so much time.
async fn told_in(
    time: Duration,
    events: &mut (impl Stream<Item = watcher::Result<Event<LocalPool>>> + Unpin),
) -> Vec<watcher::Result<Event<LocalPool>>> {
    let mut told = Vec::new();
    let end = tokio::time::sleep(time);
    let mut end = pin!(end);
    loop {
        tokio::select! {
            event = events.next() => told.push(event.unwrap()),
            () = &mut end => return told,
        }
    }
}

const TEN_MINUTES: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn an_api_server_that_refuses_everything_is_asked_ever_less_often() {
    let server = Server::new(Mood::RefusesAll);
    let mut events = pin!(server.watched());
    let told = told_in(TEN_MINUTES, &mut events).await;
    assert!(!told.iter().flatten().any(api::is_answer));
    let lists = server.lists();
    // At first within a second, then each 10 to 20 seconds; not each second.
    assert!(lists[1] - lists[0] <= Duration::from_secs(1), "{lists:?}");
    assert!((30..=66).contains(&lists.len()), "{}", lists.len());
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_lists_and_refuses_to_be_watched_is_asked_ever_less_often() {
    let server = Server::new(Mood::RefusesWatches);
    let mut events = pin!(server.watched());
    let told = told_in(TEN_MINUTES, &mut events).await;
    assert!(told.iter().flatten().any(api::is_answer));
    let lists = server.lists();
    assert!((30..=66).contains(&lists.len()), "{}", lists.len());
}

#[tokio::test(start_paused = true)]
async fn one_that_has_recovered_is_followed_at_once_when_it_fails_the_next_time() {
    let server = Server::new(Mood::RefusesAll);
    let mut events = pin!(server.watched());
    told_in(TEN_MINUTES, &mut events).await;
    server.becomes(Mood::Works);
    let told = told_in(TEN_MINUTES, &mut events).await;
    assert!(matches!(told[..], [Ok(Event::Init), Ok(Event::InitDone)]));
    server.becomes(Mood::RefusesAll);
    server.lists();
    told_in(Duration::from_secs(5), &mut events).await;
    let lists = server.lists();
    assert!(lists.len() >= 2, "{lists:?}");
}
