//! Work that blocks, on a thread of its own, told to stop when nobody waits for it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow, bail};
use tokio::sync::oneshot;

/// Tells the work that it is not wanted any more.
#[derive(Clone)]
pub(crate) struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// To be called at every piece of work.
    ///
    /// # Errors
    /// When the demo is being stopped.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        bail!("stopped");
    }
}

/// Stops the thread and waits for it, so that no file of a volume is open when the volume is taken away.
struct Guard {
    wanted: Wanted,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.wanted.0.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Runs `work` and waits for its result.
///
/// # Errors
/// What `work` returns; also when it panics.
pub(crate) async fn run<T, W>(work: W) -> Result<T>
where
    T: Send + 'static,
    W: FnOnce(&Wanted) -> Result<T> + Send + 'static,
{
    let wanted = Wanted(Arc::new(AtomicBool::new(true)));
    let (answer, result) = oneshot::channel();
    let told = wanted.clone();
    let thread = std::thread::Builder::new()
        .name("worker".to_owned())
        .spawn(move || {
            // Nobody takes the answer when the demo is being stopped.
            drop(answer.send(work(&told)));
        })?;
    let _guard = Guard {
        wanted,
        thread: Some(thread),
    };
    result
        .await
        .map_err(|_gone| anyhow!("a worker of the demo died, see above"))?
}
