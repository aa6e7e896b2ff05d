//! Names that are a contract with users and with the upstream snapshot controller: a cluster can change over either way only
//! because both read and write the same ones.

/// On a content: the driver's snapshot is not to be lost while the object is there.
pub const CONTENT_FINALIZER: &str =
    "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
/// On a snapshot: its content is still there.
pub const BOUND_FINALIZER: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
/// On a snapshot: a claim may be made from it.
pub const SOURCE_FINALIZER: &str =
    "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
/// On a claim: a snapshot of it is being made.
pub const CLAIM_FINALIZER: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";
/// On a snapshot, by csi-provisioner: it makes a volume from it now.
pub const RESTORE_FINALIZER: &str =
    "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection";

/// On a content: CreateSnapshot was called and its end is not known.
pub const BEING_CREATED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
/// On a content: its snapshot is being deleted, so the driver's may be.
pub const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";
/// On a content: the Secret that the driver's calls need.
pub const SECRET_NAME: &str = "snapshot.storage.kubernetes.io/deletion-secret-name";
/// Where that Secret is.
pub const SECRET_NAMESPACE: &str = "snapshot.storage.kubernetes.io/deletion-secret-namespace";
/// On a content: it is part of a group, which others look after.
pub const GROUP_HANDLE: &str = "groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle";
/// On a class: it is for snapshots that name none.
pub const IS_DEFAULT_CLASS: &str = "snapshot.storage.kubernetes.io/is-default-class";

/// The value of the annotations that are only there or not.
pub const YES: &str = "yes";

/// The API group of snapshots.
pub const GROUP: &str = "snapshot.storage.k8s.io";
/// The API group of snapshots of several volumes.
pub const GROUP_OF_GROUPS: &str = "groupsnapshot.storage.k8s.io";

/// The name of the content that is made for a snapshot.
#[must_use]
pub fn content_of(snapshot_uid: &str) -> String {
    format!("snapcontent-{snapshot_uid}")
}

/// The name by which the driver is asked to make the snapshot.
#[must_use]
pub fn csi_name_of(snapshot_uid: &str) -> String {
    format!("snapshot-{snapshot_uid}")
}
