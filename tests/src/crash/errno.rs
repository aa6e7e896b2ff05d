//! The errors that a step is made to fail with, and what the caller may hear of them.

use pool::fault::Operation;
use tonic::{Code, Status};

use crate::client::shown;

/// An error of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// It failed.
    Eio,
    /// It is full.
    Enospc,
    /// The quota is used up.
    Edquot,
    /// It has become read-only.
    Erofs,
}

impl Errno {
    /// The action's name in `VD_FAULT`.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::Eio => "eio",
            Self::Enospc => "enospc",
            Self::Edquot => "edquot",
            Self::Erofs => "erofs",
        }
    }

    /// The caller of `operations` must hear what kind of error it was, or, when the outcome is unknown, that it is to call again.
    #[track_caller]
    pub fn suits(self, operations: &[Operation], status: &Status) {
        let plain = match self {
            Self::Eio => Code::Internal,
            // A user may only lower a request that is called infeasible.
            Self::Enospc | Self::Edquot if operations.contains(&Operation::ExpandVolume) => {
                Code::OutOfRange
            }
            Self::Enospc | Self::Edquot => Code::ResourceExhausted,
            Self::Erofs => Code::Unavailable,
        };
        let code = status.code();
        assert!(
            code == plain || code == Code::Unavailable,
            "{self:?} is answered with {}",
            shown(status)
        );
        assert!(!status.message().is_empty(), "{code:?} without a message");
    }
}

/// Whether the caller may take the operation for undone.
#[must_use]
pub fn is_final(status: &Status) -> bool {
    status.code() != Code::Unavailable
}
