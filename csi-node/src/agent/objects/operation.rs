//! Operations on data, which go on when the reconciliation that began them does not wait any longer.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::errors::{Failure, Kind};
use tokio::task::JoinHandle;

use super::managed::Measured;
use super::plan::Step;
use crate::agent::metrics::Operations;

/// How an operation ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) step: Step,
    /// Of the object that asked for it.
    pub(super) generation: i64,
    pub(super) result: Result<(), Failure>,
}

/// Who asks for an operation, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) uid: &'a str,
    pub(super) generation: i64,
    pub(super) step: Step,
}

/// The operations that run, by the uid of the object.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<HashMap<String, Operation>>);

#[derive(Debug)]
struct Operation {
    step: Step,
    generation: i64,
    task: JoinHandle<Result<(), Failure>>,
}

impl Running {
    /// Begins an operation. There must not be one for this object.
    pub(super) fn begin(
        &self,
        asked: Asked<'_>,
        name: &'static str,
        operations: &Operations,
        work: impl Future<Output = Result<Measured, Failure>> + Send + 'static,
    ) {
        let operations = operations.clone();
        let task = tokio::spawn(tracing::Instrument::in_current_span(async move {
            let running = operations.begin(name);
            let started = Instant::now();
            let result = work.await;
            running.end(started.elapsed(), &result);
            result.map(drop)
        }));
        let Asked {
            uid,
            generation,
            step,
        } = asked;
        let operation = Operation {
            step,
            generation,
            task,
        };
        self.put(uid, operation);
    }

    /// Waits for the operation of `uid`, at most `patience`: `None` when there is none, `Some(None)` while it goes on.
    pub(super) async fn wait(&self, uid: &str, patience: Duration) -> Option<Option<Ended>> {
        let mut operation = self.take(uid)?;
        match tokio::time::timeout(patience, &mut operation.task).await {
            Err(_goes_on) => {
                self.put(uid, operation);
                Some(None)
            }
            Ok(ended) => Some(Some(Ended {
                step: operation.step,
                generation: operation.generation,
                result: ended.unwrap_or_else(|_panicked| Err(lost())),
            })),
        }
    }

    /// Nobody will ask any more how the operation of an object that is gone ends; it goes on.
    pub(super) fn forget(&self, uid: &str) {
        drop(self.take(uid));
    }

    fn take(&self, uid: &str) -> Option<Operation> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(uid)
    }

    fn put(&self, uid: &str, operation: Operation) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(uid.to_owned(), operation);
    }
}

fn lost() -> Failure {
    Failure::new(
        Kind::Internal,
        "the operation ended without an answer; see the log of csi-node",
    )
}
