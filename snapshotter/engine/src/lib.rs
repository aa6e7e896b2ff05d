//! snapshotter/engine
