//! Watches on kinds that may not be installed.

use futures::{Stream, StreamExt, stream};
use kube::runtime::watcher::{self, Event};

/// Tells that a list was begun when its first answer is there. For a kind that is not installed each attempt begins a list and
/// fails; to a backoff the beginning is a success, so it would ask every second for ever.
pub(super) fn with_answers<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Send + 'static,
{
    let mut begun = false;
    events.flat_map(move |event| {
        let told = match event {
            Ok(Event::Init) => {
                begun = true;
                Vec::new()
            }
            Ok(event) if std::mem::take(&mut begun) => vec![Ok(Event::Init), Ok(event)],
            Ok(event) => vec![Ok(event)],
            Err(error) => {
                begun = false;
                vec![Err(error)]
            }
        };
        stream::iter(told)
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use kube::runtime::watcher::{Error, Event};

    use super::with_answers;

    #[tokio::test]
    async fn a_list_that_fails_was_never_begun() {
        let events = [
            Ok(Event::Init),
            Err(Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(1)),
            Ok(Event::InitDone),
        ];
        let told: Vec<_> = with_answers(futures::stream::iter(events)).collect().await;
        assert!(matches!(
            told[..],
            [
                Err(Error::NoResourceVersion),
                Ok(Event::Init),
                Ok(Event::InitApply(1)),
                Ok(Event::InitDone)
            ]
        ));
    }
}
