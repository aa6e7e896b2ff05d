//! The shape of one cell of the table, and the cells that mean the same for every caller.

use tonic::Code;

/// One cell: the code, and what the caller does on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) code: Code,
    pub(super) why: &'static str,
    /// False for combinations that no service produces; the documentation leaves them out.
    pub(super) occurs: bool,
}

/// A cell of the table.
pub(super) const fn because(code: Code, why: &'static str) -> Answer {
    Answer {
        code,
        why,
        occurs: true,
    }
}

/// A combination that no service produces. Should a fault produce it, the caller sees `INTERNAL`:
/// final, reported, and never mistaken for success.
pub(super) const NEVER: Answer = Answer {
    code: Code::Internal,
    why: "does not occur in this RPC; if it does, it is a fault of the driver",
    occurs: false,
};

/// A fault of ours, for every caller.
pub(super) const FAULT: Answer = because(
    Code::Internal,
    "a fault of the driver; final for every caller, so it is shown as an event instead of being \
     retried silently",
);

/// A call that a caller simply repeats and that has no state of its own.
pub(super) const READ_FAILED: Answer = because(
    Code::Internal,
    "reading failed and nothing was changed; the caller repeats it",
);

/// The pool cannot be read now, and the call changes nothing.
pub(super) const READ_LATER: Answer = because(
    Code::Unavailable,
    "nothing can be said about a pool that is not there; the caller repeats it until the pool is \
     back, and takes no absence for an answer",
);

/// A damaged record met by a call that only reads.
pub(super) const READ_CORRUPT: Answer = because(
    Code::DataLoss,
    "the record is damaged: the object is neither there nor gone, so NOT_FOUND would be a lie that \
     makes callers forget it",
);
