//! The frame around every RPC: one span, one log line, one place where a failure becomes a code.

use std::future::Future;
use std::time::Instant;

use proto::errors::{Failure, Kind, Rpc, status};
use tonic::{Response, Status};
use tracing::{Instrument as _, Span, debug, error, warn};

/// Runs an RPC in its span, logs how it ended, and makes the answer.
///
/// A failure is logged here and nowhere else. The request is not: it may hold secrets.
pub(crate) async fn serve<T>(
    rpc: Rpc,
    span: Span,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<Response<T>, Status> {
    let started = Instant::now();
    let result = work.instrument(span.clone()).await;
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let _entered = span.enter();
    match result {
        Ok(answer) => {
            debug!(elapsed_ms, "done");
            Ok(Response::new(answer))
        }
        Err(failure) => {
            log(rpc, &failure, elapsed_ms);
            Err(status(rpc, &failure))
        }
    }
}

/// As loud as what a person has to do about it.
fn log(rpc: Rpc, failure: &Failure, elapsed_ms: u64) {
    let kind = failure.kind;
    let code = proto::errors::code(rpc, kind);
    match kind {
        Kind::Corrupt | Kind::Io | Kind::Uncertain | Kind::Internal => {
            error!(elapsed_ms, ?kind, ?code, error = %failure, "failed");
        }
        Kind::InvalidArgument
        | Kind::Conflict
        | Kind::InUse
        | Kind::NoSpace
        | Kind::OutOfRange
        | Kind::Precondition
        | Kind::Unavailable
        | Kind::Unimplemented => {
            warn!(elapsed_ms, ?kind, ?code, error = %failure, "refused");
        }
        Kind::NotFound | Kind::Busy | Kind::BadToken => {
            debug!(elapsed_ms, ?kind, ?code, error = %failure, "refused");
        }
    }
}
