//! How hard zstd is to try.
//!
//! Its level 2 is some 20 % faster than level 3, which `qemu-img` uses; on most data its results are 0 to 2 % larger, on logs and sources
//! up to 6 %. So a sample of the disk is compressed both ways first.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

use pool::{Error, ErrorKind, Result};
use zstd::zstd_safe::{CCtx, CParameter};

use super::Pack;
use super::ahead::Ahead;
use super::crew::{How, share};
use super::pieces::{BATCH, Piece, PieceReader};
use crate::copy::Watch;
use crate::digest::is_zero;
use crate::header::cluster_len;

/// So many clusters are the sample, spread over all.
const SAMPLE: u64 = 64;
/// With fewer than this many times the sample, making it costs more than it can gain.
const WORTH_IT: u64 = 8;
/// By so much in a thousand the result may become larger. Half a percent less than what nobody should notice, because it is a sample.
const LARGER_IN_1000: u64 = 25;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effort {
    level: i32,
}

impl Effort {
    /// zstd's own default, and what `qemu-img` uses.
    pub(crate) const USUAL: Self = Self { level: 3 };
    const QUICK: Self = Self { level: 2 };

    /// Each stream carries a checksum of its cluster (4 bytes), which every decoder compares.
    pub(crate) fn encoder(self) -> Result<CCtx<'static>> {
        let mut context = CCtx::create();
        for parameter in [
            CParameter::CompressionLevel(self.level),
            CParameter::ChecksumFlag(true),
        ] {
            context.set_parameter(parameter).map_err(|code| {
                Error::new(
                    ErrorKind::Internal,
                    format!("zstd does not take its settings: error {code}"),
                )
            })?;
        }
        Ok(context)
    }
}

/// What the sample became with either effort, in bytes.
#[derive(Debug, Default)]
struct Sample {
    usual: AtomicU64,
    quick: AtomicU64,
}

impl Sample {
    fn effort(&self) -> Effort {
        let usual = self.usual.load(Ordering::Relaxed);
        let quick = self.quick.load(Ordering::Relaxed);
        if usual > 0 && quick * 1000 <= usual * (1000 + LARGER_IN_1000) {
            Effort::QUICK
        } else {
            Effort::USUAL
        }
    }

    /// Takes a cluster in; one that does not become smaller says nothing.
    fn add(&self, usual: Option<usize>, quick: Option<usize>) {
        if let (Some(usual), Some(quick)) = (usual, quick) {
            self.usual.fetch_add(usual as u64, Ordering::Relaxed);
            self.quick.fetch_add(quick as u64, Ordering::Relaxed);
        }
    }
}

/// The effort for a disk of so many allocated `clusters`. The same disk gets the same each time.
///
/// # Errors
/// Those of reading it, and of the watch.
pub(crate) fn choose(
    image: &File,
    pieces: impl Iterator<Item = Result<Piece>> + Send,
    clusters: u64,
    how: &Pack<'_>,
) -> Result<Effort> {
    if clusters < WORTH_IT * SAMPLE {
        return Ok(Effort::USUAL);
    }
    let step = usize::try_from(clusters / SAMPLE).unwrap_or(usize::MAX);
    let silent = Watch {
        progress: &|_done, _total| {},
        ..*how.watch
    };
    let sampling = How {
        watch: &silent,
        idle: how.idle,
        clusters: SAMPLE,
        tend: &|| Ok(()),
    };
    let sample = Sample::default();
    share(Ahead::new(image, pieces.step_by(step)), sampling, |work| {
        let mut reader = PieceReader::new(image);
        let (mut usual, mut quick) = (Effort::USUAL.encoder()?, Effort::QUICK.encoder()?);
        let mut bytes = vec![0; BATCH * cluster_len()];
        let mut stream = vec![0; cluster_len() - 1];
        while let Some(batch) = work.next()? {
            let length = batch.pieces.len() * cluster_len();
            let disk = bytes.get_mut(..length).unwrap_or_default();
            reader.read(&batch.pieces, disk)?;
            for cluster in disk
                .chunks(cluster_len())
                .filter(|cluster| !is_zero(cluster))
            {
                let mut length =
                    |encoder: &mut CCtx<'_>| encoder.compress2(&mut stream[..], cluster).ok();
                sample.add(length(&mut usual), length(&mut quick));
            }
        }
        Ok(())
    })?;
    Ok(sample.effort())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_way_is_taken_where_it_costs_little_and_where_something_is_known() {
        let effort = |usual: usize, quick: usize| {
            let sample = Sample::default();
            sample.add(Some(usual), Some(quick));
            sample.add(None, Some(1 << 30));
            sample.effort()
        };
        assert_eq!(effort(1000, 990), Effort::QUICK);
        assert_eq!(effort(1000, 1025), Effort::QUICK);
        assert_eq!(effort(1000, 1026), Effort::USUAL);
        assert_eq!(Sample::default().effort(), Effort::USUAL);
    }
}
