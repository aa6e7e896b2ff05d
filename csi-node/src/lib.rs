//! What one node does: the CSI Node service, and the operations on the node's own pool.
#![forbid(unsafe_code)]

pub mod admin;
#[cfg(feature = "kubernetes")]
pub mod agent;
pub mod blocking;
pub mod claims;
pub mod failure;
pub mod joiner;
pub mod local_node;
pub mod node_service;
pub mod pool_handle;

pub use admin::AdminService;
pub use local_node::LocalNode;
pub use node_service::NodeService;
