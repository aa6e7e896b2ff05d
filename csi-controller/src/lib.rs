//! csi-controller
