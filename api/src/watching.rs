//! Watches that begin anew after an error.
//!
//! A watch that goes on from where it was waits for ever when the API server has an older state than before (a restored backup
//! of etcd): what came back is never told, nor what is gone. So after each error everything is listed again.

use std::fmt::Debug;

use futures::{Stream, StreamExt as _, stream};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Follows the objects of `api` until dropped. It asks again at once after an error: give it a backoff.
pub fn watching<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    begin_anew(move || watcher(api.clone(), config.clone()))
}

/// The items of what `begin` makes, made again after each error; over when one of them ends without an error.
pub fn begin_anew<S, T, E>(begin: impl Fn() -> S + Send) -> impl Stream<Item = Result<T, E>> + Send
where
    S: Stream<Item = Result<T, E>> + Send,
    T: Send,
    E: Send,
{
    stream::unfold((begin, None), |(begin, current)| async move {
        let mut items = current.unwrap_or_else(|| Box::pin(begin()));
        let item = items.next().await?;
        let current = item.is_ok().then_some(items);
        Some((item, (begin, current)))
    })
}
