//! The reconcilers of LocalVolume and LocalSnapshot: look, decide, do one thing, say so, and again until there is nothing to
//! do. All objects of this node at once; [`crate::LocalNode`] knows what may run together.

mod failure;
mod managed;
mod operation;
mod patch;
mod plan;
mod reconcile;
mod setbacks;
pub(crate) mod snapshot;
pub(crate) mod volume;
mod watch;

pub(crate) use managed::{Managed, Measured, signed};
pub(crate) use operation::Running;
pub(crate) use patch::{Error, answer, replace_status};
pub use plan::{Data, Facts, Plan, State, Step, View, plan};
pub(crate) use watch::{Objects, run};
