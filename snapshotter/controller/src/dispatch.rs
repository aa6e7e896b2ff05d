//! Takes keys from a queue and works on several at a time.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::queue::{Outcome, Queue};
use crate::world::World;

/// Which queue of the world.
pub(crate) type Which = fn(&World) -> &Queue;

/// When to work.
#[derive(Clone, Debug)]
pub(crate) struct Switches {
    /// Nothing new is begun once this is true.
    pub(crate) stop: watch::Receiver<bool>,
    /// Nothing is begun while this is true.
    pub(crate) pause: watch::Receiver<bool>,
}

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

/// Works until told to stop, on so many keys at a time; returns when what was begun is done.
pub(crate) async fn dispatch<F>(
    world: Arc<World>,
    which: Which,
    limit: usize,
    switches: Switches,
    work: impl Fn(String) -> F,
) where
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut stop = switches.stop;
    let (mut pause, mut paused) = (switches.pause.clone(), switches.pause);
    loop {
        let next = async {
            loop {
                until(&mut pause, false).await;
                tokio::select! {
                    biased;
                    () = until(&mut paused, true) => {}
                    key = which(&world).next() => return key,
                }
            }
        };
        let key = tokio::select! {
            biased;
            () = until(&mut stop, true) => break,
            Some(_done) = tasks.join_next() => continue,
            key = next, if tasks.len() < limit => key,
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
