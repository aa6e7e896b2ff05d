//! What is made.

use std::fmt::Write as _;

use crate::NAMESPACE;

/// Claims of 16 MiB with immediate binding, empty or of a snapshot.
pub(crate) fn claims(names: &[String], source: Option<&str>) -> String {
    let source = source.map_or(String::new(), |name| {
        format!(
            "dataSource: {{apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: {name}}}"
        )
    });
    let mut text = String::new();
    for name in names {
        // Writing into a String does not fail.
        let _written = write!(
            text,
            "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  storageClassName: vd-immediate
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 16Mi}}}}
  {source}
---"
        );
    }
    text
}

/// A snapshot of a claim.
pub(crate) fn snapshot(name: &str, claim: &str) -> String {
    format!(
        "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec: {{volumeSnapshotClassName: vd, source: {{persistentVolumeClaimName: {claim}}}}}
"
    )
}
