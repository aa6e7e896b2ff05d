//! Keeps a store by a watch.

use std::fmt::Debug;
use std::pin::pin;

use futures::StreamExt as _;
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::store::{Change, Store};

/// How often the API server says that nothing has happened, at the latest: the watch is renewed after it.
const WATCH_SECONDS: u32 = 240;

/// Follows the API server until dropped. Never ends by itself. After an error everything is listed anew, ever less often; of errors
/// in a row the first is told.
pub(crate) async fn follow<K>(api: Api<K>, store: &Store<K>, changed: impl Fn(&Change<K>))
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let mut events = pin!(api::watching(api, config));
    let mut told = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // That a list is begun is no success: of a kind that is not installed each is, and of one that is never read to its
                // end each has a first page.
                if !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_)) {
                    told = false;
                }
                for change in store.apply(event) {
                    changed(&change);
                }
            }
            Err(error) => {
                store.broken();
                if !std::mem::replace(&mut told, true) {
                    let kind = K::kind(&());
                    tracing::warn!(%kind, %error, "the watch is broken; trying again");
                }
            }
        }
    }
}
