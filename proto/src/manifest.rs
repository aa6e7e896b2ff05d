//! What the driver promises beyond CSI, in the manifest of GetPluginInfo. Of a driver that says nothing, nothing is known.

/// The entry about the ids of snapshots.
pub const SNAPSHOT_ID: &str = "vd.csi.io/snapshot-id";
/// Its value: the id of a snapshot that is asked for as `snapshot-<uuid>` is that name. So it can be deleted though CreateSnapshot has
/// never answered.
pub const IS_NAME: &str = "name";
