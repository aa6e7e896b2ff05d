//! A disk from elsewhere into a snapshot.

use std::fs::File;
use std::os::unix::fs::FileExt;

use pool::{Context, Result};

use crate::capture::Cut;
use crate::copy::{Part, Watch, copy_data};
use crate::header::cluster_len;
use crate::reader::{Content, Image};

/// How much compressed data is decoded in one go.
const STEP: u64 = 1 << 20;

/// Copies the disk of an accepted image into `image`, the private file of `cut`. What reads as zero stays a hole.
///
/// # Errors
/// Those of [`Watch`]; `Corrupt` when the source changed since it was checked; `NoSpace`; `Io`.
pub fn import_qcow2(
    source: &mut Image<'_>,
    cut: &Cut<'_>,
    image: &File,
    watch: &Watch<'_>,
) -> Result<()> {
    let (first, all) = (prepare(cut, image)?, source.facts().virtual_bytes);
    let mut at = 0;
    while let Some(run) = source.run(at)? {
        at = run.start + run.bytes;
        match run.content {
            Content::Zero => {}
            Content::Data { offset } => {
                let part = Part {
                    file: source.file(),
                    offset,
                    length: run.bytes,
                };
                let of_this_run = Watch {
                    progress: &|done, _of_the_run| (watch.progress)(run.start + done, all),
                    ..*watch
                };
                copy_data(part, image, first + run.start, &of_this_run)?;
            }
            Content::Compressed => {
                for start in (run.start..at).step_by(cluster_len() * 16) {
                    watch.check()?;
                    decode(source, start, STEP.min(at - start), image, first)?;
                    (watch.progress)(start, all);
                }
            }
        }
    }
    (watch.progress)(all, all);
    Ok(())
}

/// Copies a raw disk into `image`, the private file of `cut`. Holes stay holes.
///
/// # Errors
/// Those of [`Watch`]; `NoSpace`; `Io`.
pub fn import_raw(source: &File, cut: &Cut<'_>, image: &File, watch: &Watch<'_>) -> Result<()> {
    let part = Part {
        file: source,
        offset: 0,
        length: source.metadata().during("look at the raw disk")?.len(),
    };
    copy_data(part, image, prepare(cut, image)?, watch)
}

/// Gives the file its size, and answers where the disk begins in it.
fn prepare(cut: &Cut<'_>, image: &File) -> Result<u64> {
    let layout = cut.layout();
    image
        .set_len(layout.file_bytes())
        .during("size the new image")?;
    Ok(layout.data_offset())
}

fn decode(source: &mut Image<'_>, start: u64, length: u64, image: &File, first: u64) -> Result<()> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    source.read_at(start, &mut bytes)?;
    for (cluster, at) in bytes
        .chunks(cluster_len())
        .zip((0u64..).step_by(cluster_len()))
    {
        if cluster.iter().any(|byte| *byte != 0) {
            image
                .write_all_at(cluster, first + start + at)
                .context_with(|| format!("write the disk at byte {}", start + at))?;
        }
    }
    Ok(())
}
