//! The digest of a snapshot's metadata; defined in the documentation of the module `layout`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use blake3::{Hash, Hasher};
use pool::{Context, Error, ErrorKind, Result};

use crate::data_map::{ClusterRuns, DataRuns};
use crate::header::cluster_len;
use crate::layout::{CLUSTER_BYTES, Layout};

static ZERO_CLUSTER: [u8; cluster_len()] = [0; cluster_len()];

/// Whether a cluster has no bit set.
pub(crate) fn is_zero(cluster: &[u8]) -> bool {
    cluster == &ZERO_CLUSTER[..cluster.len().min(ZERO_CLUSTER.len())]
}

/// One metadata cluster of a file that is being built: its number and the hash of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClusterHash {
    pub(crate) cluster: u64,
    pub(crate) hash: Hash,
}

impl ClusterHash {
    pub(crate) fn new(cluster: u64, bytes: &[u8]) -> Self {
        Self {
            cluster,
            hash: blake3::hash(bytes),
        }
    }
}

/// The digest over the hashes of all clusters that are not zero, in file order.
pub(crate) fn digest_of(clusters: impl IntoIterator<Item = ClusterHash>) -> String {
    let mut hasher = Hasher::new();
    for ClusterHash { cluster, hash } in clusters {
        hasher.update(&cluster.to_le_bytes());
        hasher.update(hash.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The metadata digest of `image`, read from the file: 64 hex digits. Nothing in the file is interpreted, holes are not
/// read, and 64 KiB are in memory at a time.
///
/// # Errors
/// `Corrupt` when the file does not have the size of the layout; `Io` when it cannot be read.
pub fn metadata_digest(image: &File, layout: &Layout) -> Result<String> {
    check_size(image, layout)?;
    let mut hasher = Hasher::new();
    for_each_cluster(image, layout, |cluster, bytes| {
        hasher.update(&cluster.to_le_bytes());
        hasher.update(blake3::hash(bytes).as_bytes());
        Ok(())
    })?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// The same digest over the first `bytes` bytes of any image, whole clusters.
///
/// # Errors
/// `Io`.
pub(crate) fn front_digest(image: &File, bytes: u64) -> Result<String> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; cluster_len()];
    for run in ClusterRuns::new(DataRuns::new(image, 0, bytes)) {
        for cluster in run? {
            let offset = cluster * CLUSTER_BYTES;
            image
                .read_exact_at(&mut buffer, offset)
                .context_with(|| format!("read the snapshot image at byte {offset}"))?;
            if !is_zero(&buffer) {
                hasher.update(&cluster.to_le_bytes());
                hasher.update(blake3::hash(&buffer).as_bytes());
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Calls `visit` with each cluster of the metadata area that is not all zero, in file order.
pub(crate) fn for_each_cluster(
    image: &File,
    layout: &Layout,
    mut visit: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut bytes = vec![0; cluster_len()];
    for run in ClusterRuns::new(DataRuns::new(image, 0, layout.data_offset())) {
        for cluster in run? {
            read_cluster(image, layout, cluster, &mut bytes)?;
            if !is_zero(&bytes) {
                visit(cluster, &bytes)?;
            }
        }
    }
    Ok(())
}

/// Reads one cluster of the file into `bytes`.
pub(crate) fn read_cluster(
    image: &File,
    layout: &Layout,
    cluster: u64,
    bytes: &mut [u8],
) -> Result<()> {
    let offset = cluster * CLUSTER_BYTES;
    image.read_exact_at(bytes, offset).context_with(|| {
        format!(
            "read {} of the snapshot image at byte {offset}",
            layout.describe(cluster)
        )
    })
}

/// Refuses a file that is shorter or longer than the layout says.
pub(crate) fn check_size(image: &File, layout: &Layout) -> Result<()> {
    let found = image.metadata().during("look at the snapshot image")?.len();
    if found == layout.file_bytes() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "the snapshot image has {found} bytes where a disk of {} bytes makes {}: it was cut short or is another file",
            layout.virtual_bytes(),
            layout.file_bytes()
        ),
    ))
}
