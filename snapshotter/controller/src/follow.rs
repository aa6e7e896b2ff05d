//! Keeps a store by a watch.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::store::{Change, Store};

/// How often the API server says that nothing has happened, at the latest: the watch is renewed after it.
const WATCH_SECONDS: u32 = 240;
/// How long after a watch has failed it is tried again; doubled after each.
const FIRST: Duration = Duration::from_millis(500);
/// The longest such pause: how late definitions that are installed later are found.
const MOST: Duration = Duration::from_secs(30);

/// Follows the API server until dropped. Never ends by itself.
pub(crate) async fn follow<K>(api: Api<K>, store: &Store<K>, changed: impl Fn(&Change<K>))
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let mut events = pin!(api::watching(api, config));
    let mut pause = FIRST;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // That a list is begun is no success: of a kind that is not installed each is, and of one that is never read to its
                // end each has a first page.
                if !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_)) {
                    pause = FIRST;
                }
                for change in store.apply(event) {
                    changed(&change);
                }
            }
            Err(error) => {
                store.broken();
                if pause == FIRST {
                    let kind = K::kind(&());
                    tracing::warn!(%kind, %error, "the watch is broken; trying again");
                }
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(MOST);
            }
        }
    }
}
