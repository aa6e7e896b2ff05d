//! Operations that outlive the call which began them, and calls that join them.
//!
//! Orchestrators give up on a call after a minute and make it again, word for word. The second call finds the first one's
//! operation still running and waits for the same answer; one that asks for something else under the same id hears
//! `Busy`.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use proto::errors::{Failure, Kind};
use tokio::sync::watch;

/// The answer, once there is one.
type Answer<A> = watch::Receiver<Option<Result<A, Failure>>>;

/// What runs, with the request that it was started for.
type Running<Q, A> = Arc<Mutex<HashMap<String, (Q, Answer<A>)>>>;

/// Running operations of one kind, by the id of what they work on.
#[derive(Debug)]
pub struct Joiner<Q, A> {
    running: Running<Q, A>,
}

impl<Q, A> Default for Joiner<Q, A> {
    fn default() -> Self {
        Self {
            running: Arc::default(),
        }
    }
}

impl<Q, A> Joiner<Q, A>
where
    Q: PartialEq + Clone + Send + 'static,
    A: Clone + Send + Sync + 'static,
{
    /// Starts `operation` for `id`, or joins the one that runs if it was asked for with the same `request`.
    ///
    /// # Errors
    /// What the operation answers; `Busy` when another request for `id` runs.
    pub async fn run<F>(
        &self,
        id: &str,
        request: &Q,
        operation: impl FnOnce() -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<A, Failure>> + Send + 'static,
    {
        let mut answer = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            match running.get(id) {
                Some((same, answer)) if same == request => answer.clone(),
                Some(_) => return Err(busy(id)),
                None => self.start(&mut running, id, request, operation()),
            }
        };
        let answered = answer
            .wait_for(Option::is_some)
            .await
            .map_err(|_gone| lost())?;
        answered.clone().unwrap_or_else(|| Err(lost()))
    }

    fn start<F>(
        &self,
        running: &mut HashMap<String, (Q, Answer<A>)>,
        id: &str,
        request: &Q,
        operation: F,
    ) -> Answer<A>
    where
        F: Future<Output = Result<A, Failure>> + Send + 'static,
    {
        let (sender, receiver) = watch::channel(None);
        running.insert(id.to_owned(), (request.clone(), receiver.clone()));
        let leave = Leave {
            running: Arc::clone(&self.running),
            id: id.to_owned(),
        };
        let span = tracing::Span::current();
        tokio::spawn(tracing::Instrument::instrument(
            async move {
                let result = operation.await;
                // Who comes from here on starts anew and finds the result on the disk.
                drop(leave);
                sender.send_replace(Some(result));
            },
            span,
        ));
        receiver
    }
}

/// Takes an operation off the list, also when it panics.
struct Leave<Q, A> {
    running: Running<Q, A>,
    id: String,
}

impl<Q, A> Drop for Leave<Q, A> {
    fn drop(&mut self) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}

fn busy(id: &str) -> Failure {
    Failure::new(
        Kind::Busy,
        format!("another request for {id} with other parameters is running; try again"),
    )
}

fn lost() -> Failure {
    Failure::new(
        Kind::Internal,
        "the operation ended without an answer; see the log of the driver",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn an_identical_call_joins_and_a_different_one_is_busy() {
        let joiner = Arc::new(Joiner::<u32, u32>::default());
        let started = Arc::new(AtomicUsize::new(0));
        let (finish, finished) = oneshot::channel::<()>();
        let first = tokio::spawn({
            let (joiner, started) = (Arc::clone(&joiner), Arc::clone(&started));
            async move {
                let work = || async move {
                    started.fetch_add(1, Ordering::SeqCst);
                    finished.await.ok();
                    Ok(7)
                };
                joiner.run("a", &1, work).await
            }
        });
        while started.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let other = joiner.run("a", &2, || async { Ok(8) }).await;
        assert_eq!(other.unwrap_err().kind, Kind::Busy);
        let second = tokio::spawn({
            let joiner = Arc::clone(&joiner);
            async move { joiner.run("a", &1, || async { Ok(9) }).await }
        });
        tokio::task::yield_now().await;
        finish.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(7));
        assert_eq!(second.await.unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn an_operation_outlives_the_call_that_began_it() {
        let joiner = Arc::new(Joiner::<u32, u32>::default());
        let (finish, finished) = oneshot::channel::<()>();
        let (done, was_done) = oneshot::channel::<()>();
        let call = tokio::spawn({
            let joiner = Arc::clone(&joiner);
            async move {
                let work = || async move {
                    finished.await.ok();
                    done.send(()).ok();
                    Ok(1)
                };
                joiner.run("a", &1, work).await
            }
        });
        while joiner.running.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        call.abort();
        finish.send(()).unwrap();
        was_done.await.unwrap();
    }
}
