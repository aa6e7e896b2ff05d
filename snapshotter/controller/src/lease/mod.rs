//! Which copy works, and whether somebody else serves the cluster: both by Leases.
//!
//! There are crates for leader election on `kube`; they compare the times in a Lease with the own clock, so a clock that is wrong
//! makes two leaders. As client-go does, only changes of a Lease are watched here, by a clock that never jumps.

mod decide;
mod election;
mod hold;
mod upstream;

pub(crate) use self::election::Election;
pub(crate) use self::hold::Hold;
pub(crate) use self::upstream::Upstream;
