//! Takes keys from a queue and works on several at a time.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::queue::{Outcome, Queue};
use crate::world::World;

/// Which queue of the world.
pub(crate) type Which = fn(&World) -> &Queue;

/// A key that is worked on. However that ends, the queue hears of it.
struct Running {
    world: Arc<World>,
    which: Which,
    key: String,
    outcome: Outcome,
}

impl Running {
    /// A method, since it takes all of it into the task that calls it, and not the outcome alone.
    fn ends(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        (self.which)(&self.world).done(&self.key, self.outcome);
    }
}

/// Works until `stop` is true, on so many keys at a time; returns when what was begun is done. Begins nothing while `known` does not
/// return.
pub(crate) async fn dispatch<F>(
    world: Arc<World>,
    which: Which,
    limit: usize,
    mut stop: watch::Receiver<bool>,
    known: impl AsyncFn(&World),
    work: impl Fn(String) -> F,
) where
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    loop {
        let key = tokio::select! {
            biased;
            () = until(&mut stop, true) => break,
            Some(_done) = tasks.join_next() => continue,
            key = async { known(&world).await; which(&world).next().await }, if tasks.len() < limit => key,
        };
        let mut running = Running {
            world: Arc::clone(&world),
            which,
            key: key.clone(),
            outcome: Outcome::Failed,
        };
        let working = work(key);
        tasks.spawn(async move {
            running.ends(working.await);
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// Returns once the switch stands so.
pub(crate) async fn until(switch: &mut watch::Receiver<bool>, stands: bool) {
    if switch.wait_for(|now| *now == stands).await.is_err() {
        // Nobody can turn it any more.
        std::future::pending::<()>().await;
    }
}
