//! Whether a snapshot image is what its record says, for `vdctl pool check`.
//!
//! In the identity layout the metadata is a function of the virtual size and the set of allocated clusters. So the check
//! reads that set from the L1 and L2 tables, builds the metadata anew for it and compares: every entry has to point to
//! its one right place, every allocated cluster has refcount 1, every other 0, nothing overlaps, and nothing else is in
//! the metadata area. A flipped bit shows as a difference at its own place, or, where it makes another valid set, at the
//! counts that do not fit that set.

use std::fmt::{self, Display};
use std::fs::File;
use std::iter::Peekable;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use pool::record::{Packed, SnapshotRecord};
use pool::{Context, ErrorKind, Result};

use crate::data_map::{ClusterRuns, DataRuns};
use crate::digest::{is_zero, metadata_digest, read_cluster};
use crate::header::cluster_len;
use crate::layout::{CLUSTER_BYTES, Layout};
use crate::mapping::MappedRuns;
use crate::packed::{PackedImage, packed};
use crate::reader;
use crate::restore::recorded_layout;
use crate::tables;

/// How many problems are described; the rest is counted.
const DESCRIBED: usize = 16;

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The first problems.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more: u64,
    /// How many clusters of the disk are allocated.
    pub allocated_clusters: u64,
}

/// One thing that is wrong with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the image file, in bytes, when it has a place.
    pub position: Option<u64>,
    /// What is wrong.
    pub text: String,
}

impl Findings {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    pub(crate) fn add(&mut self, position: Option<u64>, text: String) {
        if self.problems.len() < DESCRIBED {
            self.problems.push(Problem { position, text });
        } else {
            self.more += 1;
        }
    }
}

impl Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(out, "byte {position}: {}", self.text),
            None => out.write_str(&self.text),
        }
    }
}

/// Checks a snapshot image against its record and against the format: the file's size, the metadata digest, every
/// table, and that there is no data outside the allocated clusters; of a packed image, that every stream decodes. Changes
/// nothing. Memory stays below 4 MiB and 8 bytes for each stream; time follows what is allocated, not the size of the disk.
///
/// # Errors
/// Only when the image cannot be read (`Io`): what is wrong with what was read is a finding.
pub fn verify(image: &File, record: &SnapshotRecord) -> Result<Findings> {
    let mut findings = Findings::default();
    if let Some(packed) = packed(record) {
        return verify_packed(image, record, packed, findings);
    }
    let checked = recorded_layout(record).and_then(|layout| {
        let digest = metadata_digest(image, &layout)?;
        Ok((layout, digest))
    });
    let (layout, digest) = match checked {
        Ok(checked) => checked,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            findings.add(None, error.to_string());
            return Ok(findings);
        }
        Err(error) => return Err(error),
    };
    if digest != record.metadata_digest {
        let recorded = &record.metadata_digest;
        findings.add(
            None,
            format!("the metadata digest is {digest}, the record says {recorded}"),
        );
    }
    compare_tables(image, &layout, &mut findings)?;
    find_stray_data(image, &layout, &mut findings)?;
    Ok(findings)
}

/// A packed image is held against its record, and then against everything that is asked of an image from elsewhere: every table,
/// every count, and that each stream decodes.
fn verify_packed(
    image: &File,
    record: &SnapshotRecord,
    packed: Packed,
    mut findings: Findings,
) -> Result<Findings> {
    compare_front(image, record, packed, &mut findings)?;
    match reader::check(image) {
        Ok(accepted) => {
            let facts = accepted.facts();
            findings.allocated_clusters = facts.data_clusters + facts.compressed_clusters;
        }
        Err(reader::Failure::Refused(refusal)) => findings.add(refusal.offset, refusal.to_string()),
        Err(reader::Failure::Unreadable(error)) => return Err(error),
    }
    Ok(findings)
}

/// Holds the metadata of a packed image against its record.
pub(crate) fn compare_front(
    image: &File,
    record: &SnapshotRecord,
    packed: Packed,
    findings: &mut Findings,
) -> Result<()> {
    match PackedImage::open(image, record, packed) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            findings.add(None, error.to_string());
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// The first place where the metadata contradicts itself.
pub(crate) fn first_problem(image: &File, layout: &Layout) -> Result<Option<Problem>> {
    let mut findings = Findings::default();
    compare_tables(image, layout, &mut findings)?;
    Ok(findings.problems.into_iter().next())
}

/// Compares the metadata area with what it has to be for the clusters that it says are allocated.
fn compare_tables(image: &File, layout: &Layout, findings: &mut Findings) -> Result<()> {
    let mut allocated = 0;
    let mapped = MappedRuns::new(image, layout).inspect(|run| {
        allocated += run.as_ref().map_or(0, |run| run.end - run.start);
    });
    let mut in_use = ClusterSet::new(layout.metadata_clusters());
    let mut found = vec![0; cluster_len()];
    tables::build(layout, mapped, &mut |cluster, expected| {
        in_use.insert(cluster);
        read_cluster(image, layout, cluster, &mut found)?;
        compare(layout, cluster, expected, &found, findings);
        Ok(())
    })?;
    findings.allocated_clusters = allocated;
    let zero = vec![0; cluster_len()];
    for run in ClusterRuns::new(DataRuns::new(image, 0, layout.data_offset())) {
        for cluster in run?.filter(|cluster| !in_use.contains(*cluster)) {
            read_cluster(image, layout, cluster, &mut found)?;
            compare(layout, cluster, &zero, &found, findings);
        }
    }
    Ok(())
}

/// Reports the first word of a cluster that differs.
fn compare(layout: &Layout, cluster: u64, expected: &[u8], found: &[u8], findings: &mut Findings) {
    let (expected, _) = expected.as_chunks::<8>();
    let (found, _) = found.as_chunks::<8>();
    let differs = (0u64..)
        .zip(expected.iter().zip(found))
        .find(|(_, (expected, found))| expected != found);
    if let Some((word, (expected, found))) = differs {
        let position = cluster * CLUSTER_BYTES + word * 8;
        let (expected, found) = (u64::from_be_bytes(*expected), u64::from_be_bytes(*found));
        findings.add(
            Some(position),
            format!(
                "{} holds {found:#018x} where {expected:#018x} belongs",
                layout.describe(cluster)
            ),
        );
    }
}

/// Reports data in clusters that are not allocated: qemu would not show it, a restore would.
fn find_stray_data(image: &File, layout: &Layout, findings: &mut Findings) -> Result<()> {
    let mut mapped = MappedRuns::new(image, layout).peekable();
    let mut bytes = vec![0; cluster_len()];
    for run in ClusterRuns::new(DataRuns::new(
        image,
        layout.data_offset(),
        layout.virtual_bytes(),
    )) {
        for cluster in run? {
            if is_mapped(&mut mapped, cluster)? {
                continue;
            }
            let position = layout.data_offset() + cluster * CLUSTER_BYTES;
            image
                .read_exact_at(&mut bytes, position)
                .context_with(|| format!("read the snapshot image at byte {position}"))?;
            // A copy of the file that knows nothing of holes stores zeroes there, and does no harm.
            if !is_zero(&bytes) {
                findings.add(
                    Some(position),
                    format!("cluster {cluster} of the disk has data and is not allocated"),
                );
            }
        }
    }
    Ok(())
}

/// Whether `cluster` is in one of the ascending runs; asked with ascending numbers.
fn is_mapped(
    runs: &mut Peekable<impl Iterator<Item = Result<Range<u64>>>>,
    cluster: u64,
) -> Result<bool> {
    while runs
        .next_if(|run| run.as_ref().is_ok_and(|run| run.end <= cluster))
        .is_some()
    {}
    match runs.next_if(Result::is_err) {
        Some(Err(error)) => Err(error),
        _ => Ok(runs
            .peek()
            .is_some_and(|run| run.as_ref().is_ok_and(|run| run.contains(&cluster)))),
    }
}

/// A set of cluster numbers, one bit each: 20 KiB for the metadata of the largest disk.
struct ClusterSet(Vec<u64>);

impl ClusterSet {
    fn new(clusters: u64) -> Self {
        Self(vec![0; usize::try_from(clusters / 64 + 1).unwrap_or(0)])
    }

    fn insert(&mut self, cluster: u64) {
        if let Some(word) = usize::try_from(cluster / 64)
            .ok()
            .and_then(|at| self.0.get_mut(at))
        {
            *word |= 1 << (cluster % 64);
        }
    }

    fn contains(&self, cluster: u64) -> bool {
        usize::try_from(cluster / 64)
            .ok()
            .and_then(|at| self.0.get(at))
            .is_some_and(|word| word & (1 << (cluster % 64)) != 0)
    }
}
