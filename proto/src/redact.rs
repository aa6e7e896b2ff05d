//! What is printed in place of a secret.

use std::fmt;

/// Stands for a field whose content is never printed; prints how many entries it has.
pub(crate) struct Redacted(pub(crate) usize);

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} redacted>", self.0)
    }
}
