//! csi-node
