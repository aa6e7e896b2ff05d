//! The manifests of the story, as a person would write them.

/// A class for XFS, which grows under its pod wherever root may mount it; `vd` itself makes ext4.
pub(crate) const CLASS: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: demo-xfs}
provisioner: vd.csi.io
volumeBindingMode: WaitForFirstConsumer
allowVolumeExpansion: true
parameters: {csi.storage.k8s.io/fstype: xfs}
";

/// A claim; `source` is nothing, or a `dataSource`.
pub(crate) fn claim(name: &str, class: &str, mode: &str, size: &str, source: &str) -> String {
    format!(
        "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec:
  storageClassName: {class}
  volumeMode: {mode}
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: {size}}}}}
  {source}
---"
    )
}

/// `dataSource` of a claim that restores a snapshot.
pub(crate) fn from_snapshot(name: &str) -> String {
    format!("dataSource: {{apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: {name}}}")
}

/// `dataSource` of a claim that clones another.
pub(crate) fn from_claim(name: &str) -> String {
    format!("dataSource: {{kind: PersistentVolumeClaim, name: {name}}}")
}

/// A snapshot of a claim.
pub(crate) fn snapshot(name: &str, claim: &str) -> String {
    format!(
        "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {{name: {name}}}
spec: {{volumeSnapshotClassName: vd, source: {{persistentVolumeClaimName: {claim}}}}}
---"
    )
}

/// A pod with a filesystem at `/data` and a device at `/dev/disk`.
pub(crate) fn pod(name: &str, image: &str, filesystem: &str, block: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: shell
      image: {image}
      command: [sh, -c, sleep 3600]
      volumeMounts: [{{name: data, mountPath: /data}}]
      volumeDevices: [{{name: disk, devicePath: /dev/disk}}]
  volumes:
    - {{name: data, persistentVolumeClaim: {{claimName: {filesystem}}}}}
    - {{name: disk, persistentVolumeClaim: {{claimName: {block}}}}}
---"
    )
}
