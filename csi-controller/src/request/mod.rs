//! Requests, from what came over the wire to checked values.
//!
//! Everything a caller can get wrong is found here, in pure functions: no request is half done
//! when a field turns out to be bad. Secrets are never read.

pub(crate) mod capability;
pub(crate) mod create_volume;
pub(crate) mod page;
pub(crate) mod parameters;
pub(crate) mod snapshot;
pub(crate) mod text;
pub(crate) mod topology;
pub(crate) mod volume;

#[cfg(test)]
mod tests;
