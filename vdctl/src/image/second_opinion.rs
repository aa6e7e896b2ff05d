//! What another reader of qcow2, the library `qcow2-rs`, makes of an image that ours has accepted.
//!
//! This is the one file that knows the library. Its faults decide how it is used here: it opens backing files (so it is
//! given no path, only our open file, and only images without one), it leaves buffers as they were at the end of a file
//! (so our I/O fills them with zeroes), it panics and hangs on bad images (so it sees accepted ones only, on a thread of
//! its own), its futures cannot change threads (so one thread polls them to their end).

use std::fmt::{self, Display};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use qcow2_rs::dev::{Qcow2Dev, Qcow2DevParams};
use qcow2_rs::error::Qcow2Result;
use qcow2_rs::meta::{MappingSource, Qcow2Header};
use qcow2_rs::ops::Qcow2IoOps;
use serde::Serialize;
use snapshot_engine::reader::{Compression, Content, Facts, Image, Run};

/// As much of the disk as is compared at once: a multiple of every cluster size.
const STEP: u64 = 2 << 20;
/// Below, the library computes a negative shift and never ends.
const SMALLEST_CLUSTER: u64 = 4096;
/// Its unit of reading, log2.
const SECTOR_BITS: u8 = 9;

/// What the other reader says.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub(crate) enum Opinion {
    /// The same sizes, the same map, the same bytes.
    Agrees {
        /// How many bytes of the disk were read by both.
        compared_bytes: u64,
    },
    /// Something else than we do. One of the two is wrong.
    Differs {
        /// About what, and where.
        about: String,
    },
    /// It cannot read such an image.
    NotComparable {
        /// Why.
        why: String,
    },
}

impl Display for Opinion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agrees { compared_bytes } => {
                write!(
                    out,
                    "qcow2-rs agrees, {compared_bytes} bytes of the disk compared"
                )
            }
            Self::Differs { about } => write!(out, "qcow2-rs DIFFERS: {about}"),
            Self::NotComparable { why } => write!(out, "not comparable: {why}"),
        }
    }
}

/// Asks. Everything that has data is read by both readers.
pub(crate) fn ask(image: &mut Image<'_>) -> Opinion {
    if let Some(why) = beyond_it(image.facts()) {
        return Opinion::NotComparable { why };
    }
    let answer = thread::scope(|scope| {
        let asked = thread::Builder::new()
            .name("second-opinion".to_owned())
            .spawn_scoped(scope, || compare(image));
        asked.map(thread::ScopedJoinHandle::join)
    });
    match answer {
        Ok(Ok(Ok(opinion))) => opinion,
        Ok(Ok(Err(about))) => Opinion::Differs { about },
        Ok(Err(_panic)) => Opinion::Differs {
            about: "it panicked".to_owned(),
        },
        Err(error) => Opinion::NotComparable {
            why: format!("no thread for it: {error}"),
        },
    }
}

/// What such a reader is known not to read.
fn beyond_it(facts: &Facts) -> Option<String> {
    if facts.cluster_bytes < SMALLEST_CLUSTER {
        return Some(format!(
            "qcow2-rs does not read clusters of {} bytes",
            facts.cluster_bytes
        ));
    }
    if facts.compression == Compression::Zstd {
        return Some("qcow2-rs does not read zstd".to_owned());
    }
    None
}

/// Reads of a file that end with zeroes instead of early, and nothing else.
struct ReadOnly<'f>(&'f File);

impl Qcow2IoOps for ReadOnly<'_> {
    async fn read_to(&self, offset: u64, buffer: &mut [u8]) -> Qcow2Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64)? {
                0 => break,
                read => done += read,
            }
        }
        buffer[done..].fill(0);
        Ok(buffer.len())
    }

    async fn write_from(&self, _offset: u64, _buffer: &[u8]) -> Qcow2Result<()> {
        Err("the image is read only".into())
    }

    async fn fallocate(&self, _offset: u64, _length: usize, _flags: u32) -> Qcow2Result<()> {
        Err("the image is read only".into())
    }

    async fn fsync(&self, _offset: u64, _length: usize, _flags: u32) -> Qcow2Result<()> {
        Ok(())
    }
}

/// The error is what differs.
fn compare(image: &mut Image<'_>) -> Result<Opinion, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| format!("no runtime for it: {error}"))?;
    runtime.block_on(compare_whole(image))
}

async fn compare_whole(image: &mut Image<'_>) -> Result<Opinion, String> {
    let facts = *image.facts();
    let file = image.file();
    let mut start = vec![0; usize::try_from(facts.cluster_bytes).unwrap_or(0)];
    let io = ReadOnly(file);
    let refused = |error| format!("it refuses the image: {error:?}");
    io.read_to(0, &mut start).await.map_err(refused)?;
    let header = Qcow2Header::from_buf(&start).map_err(refused)?;
    compare_header(&header, &facts)?;
    let params = Qcow2DevParams::new(SECTOR_BITS, None, None, true, false);
    // The path is for its messages only.
    let other = Qcow2Dev::new(Path::new("image"), header, &params, io).map_err(refused)?;
    other.qcow2_prep_io().await.map_err(refused)?;
    let runs: Vec<Run> = image
        .runs()
        .collect::<pool::Result<_>>()
        .map_err(|error| error.to_string())?;
    let mut compared = 0;
    for run in runs {
        compare_map(&other, run, &facts).await?;
        if run.content != Content::Zero {
            compare_bytes(image, &other, run).await?;
            compared += run.bytes;
        }
    }
    Ok(Opinion::Agrees {
        compared_bytes: compared,
    })
}

fn compare_header(header: &Qcow2Header, facts: &Facts) -> Result<(), String> {
    let theirs = (
        header.version(),
        header.size(),
        1u64 << header.cluster_bits(),
    );
    let ours = (facts.version, facts.virtual_bytes, facts.cluster_bytes);
    if theirs == ours && 1 << header.refcount_order() == facts.refcount_bits {
        return Ok(());
    }
    Err(format!("the header: it reads {theirs:?}, we read {ours:?}"))
}

/// Compares where the first and the last cluster of a run are: its bytes are compared, where it has any.
async fn compare_map(
    other: &Qcow2Dev<ReadOnly<'_>>,
    run: Run,
    facts: &Facts,
) -> Result<(), String> {
    let last = (run.bytes - 1) / facts.cluster_bytes * facts.cluster_bytes;
    for inside in [0, last] {
        let at = run.start + inside;
        let theirs = other
            .get_mapping(at)
            .await
            .map_err(|error| format!("it cannot map byte {at} of the disk: {error:?}"))?;
        let same = match run.content {
            Content::Zero => {
                matches!(
                    theirs.source,
                    MappingSource::Zero | MappingSource::Unallocated
                )
            }
            Content::Data { offset } => {
                theirs.source == MappingSource::DataFile
                    && theirs.cluster_offset == Some(offset + inside)
            }
            Content::Compressed => theirs.source == MappingSource::Compressed,
        };
        if !same {
            let ours = run.content;
            return Err(format!(
                "byte {at} of the disk: it finds {theirs}, we find {ours:?}"
            ));
        }
    }
    Ok(())
}

async fn compare_bytes(
    image: &mut Image<'_>,
    other: &Qcow2Dev<ReadOnly<'_>>,
    run: Run,
) -> Result<(), String> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for at in (run.start..run.start + run.bytes).step_by(usize::try_from(STEP).unwrap_or(1)) {
        let length = STEP.min(run.start + run.bytes - at);
        ours.resize(usize::try_from(length).unwrap_or(0), 0);
        // Bytes that it leaves as they were must not look right by chance.
        theirs.clear();
        theirs.resize(ours.len(), 0xa5);
        image
            .read_at(at, &mut ours)
            .map_err(|error| error.to_string())?;
        let read = other
            .read_at(&mut theirs, at)
            .await
            .map_err(|error| format!("it cannot read byte {at} of the disk: {error:?}"))?;
        if read != ours.len() {
            return Err(format!(
                "at byte {at} of the disk it reads {read} bytes of {}",
                ours.len()
            ));
        }
        if let Some(place) = ours
            .iter()
            .zip(&theirs)
            .position(|(one, other)| one != other)
        {
            return Err(format!(
                "byte {} of the disk has another value for it",
                at + place as u64
            ));
        }
    }
    Ok(())
}
