//! How large a volume becomes, from what was asked for. All sizes are bytes.

use proto::csi::v1::CapacityRange;
use proto::errors::{Failure, Kind};

use crate::model::{FsType, VolumeMode};

/// Every image is a multiple of this.
pub const ALIGNMENT_BYTES: u64 = 1 << 20;
/// The size of a volume for which no size was asked.
pub const DEFAULT_BYTES: u64 = 1 << 30;
/// Below 9 MiB mkfs.ext4 leaves the journal out, or fails.
pub const EXT4_MINIMUM_BYTES: u64 = 10 << 20;
/// mkfs.xfs makes no smaller file system.
pub const XFS_MINIMUM_BYTES: u64 = 300 << 20;
/// The largest size that CSI can express.
const MAXIMUM_BYTES: u64 = i64::MAX as u64;

/// What a caller asked for; 0 stands for "not said".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeRange {
    /// At least this much.
    pub required_bytes: u64,
    /// At most this much.
    pub limit_bytes: u64,
}

/// The size of a snapshot or volume that a new volume begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceSize {
    /// The size that was asked for it.
    pub requested_bytes: u64,
    /// The size of its image; the new image holds all of it.
    pub image_bytes: u64,
}

/// The outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The size that counts as asked for.
    pub requested_bytes: u64,
    /// The size of the image.
    pub capacity_bytes: u64,
}

impl SizeRange {
    /// Reads a range; none at all is a range that says nothing.
    ///
    /// # Errors
    /// `InvalidArgument` if a size is negative or the limit is below what is required.
    pub fn parse(range: Option<&CapacityRange>) -> Result<SizeRange, Failure> {
        let Some(range) = range else {
            return Ok(SizeRange::default());
        };
        let required_bytes = unsigned("required_bytes", range.required_bytes)?;
        let limit_bytes = unsigned("limit_bytes", range.limit_bytes)?;
        if limit_bytes != 0 && limit_bytes < required_bytes {
            return Err(Failure::invalid(format!(
                "capacity_range: limit_bytes {limit_bytes} is less than required_bytes \
                 {required_bytes}"
            )));
        }
        Ok(SizeRange {
            required_bytes,
            limit_bytes,
        })
    }

    /// Whether a volume of this size is what was asked for.
    #[must_use]
    pub fn admits(self, capacity_bytes: u64) -> bool {
        self.required_bytes <= capacity_bytes
            && (self.limit_bytes == 0 || capacity_bytes <= self.limit_bytes)
    }

    /// The size of a new volume.
    ///
    /// What was asked for is rounded up to 1 MiB, to the smallest size of the file system, and to
    /// the size of the source's image. If nothing was asked for it is the source's size, else
    /// 1 GiB, or as much of it as a limit leaves.
    ///
    /// # Errors
    /// `OutOfRange` if the result is above the limit, is smaller than the source, or does not fit
    /// in CSI's 63 bits.
    pub fn decide(self, mode: VolumeMode, source: Option<SourceSize>) -> Result<Size, Failure> {
        let requested_bytes = self.requested(source);
        if let Some(source) = source
            && requested_bytes < source.requested_bytes
        {
            return Err(Failure::new(
                Kind::OutOfRange,
                format!(
                    "{requested_bytes} bytes are less than the {} bytes of the source; ask for at \
                     least those",
                    source.requested_bytes
                ),
            ));
        }
        let capacity_bytes = round_up(requested_bytes)?
            .max(minimum(mode))
            .max(source.map_or(0, |source| source.image_bytes));
        if !self.admits(capacity_bytes) {
            return Err(Failure::new(
                Kind::OutOfRange,
                format!(
                    "limit_bytes {} is below {capacity_bytes} bytes, the smallest size this volume \
                     can have: sizes are multiples of 1 MiB, ext4 has at least 10 MiB and xfs 300 \
                     MiB, and a copy is as large as its source",
                    self.limit_bytes
                ),
            ));
        }
        Ok(Size {
            requested_bytes,
            capacity_bytes,
        })
    }

    /// The size to expand a volume to; a range with only a limit asks for no growth.
    ///
    /// # Errors
    /// `InvalidArgument` if the range says nothing; `OutOfRange` if no multiple of 1 MiB lies in
    /// it.
    pub fn decide_expansion(self) -> Result<Size, Failure> {
        if self == SizeRange::default() {
            return Err(Failure::invalid(
                "capacity_range is missing; say how large the volume is to become",
            ));
        }
        let capacity_bytes = round_up(self.required_bytes)?;
        if !self.admits(capacity_bytes) {
            return Err(Failure::new(
                Kind::OutOfRange,
                format!(
                    "no multiple of 1 MiB lies between required_bytes {} and limit_bytes {}",
                    self.required_bytes, self.limit_bytes
                ),
            ));
        }
        Ok(Size {
            requested_bytes: self.required_bytes,
            capacity_bytes,
        })
    }

    fn requested(self, source: Option<SourceSize>) -> u64 {
        if self.required_bytes != 0 {
            return self.required_bytes;
        }
        if let Some(source) = source {
            return source.requested_bytes;
        }
        if self.limit_bytes != 0 {
            let below_limit = self.limit_bytes - self.limit_bytes % ALIGNMENT_BYTES;
            return DEFAULT_BYTES.min(below_limit);
        }
        DEFAULT_BYTES
    }
}

/// The smallest volume of this mode.
#[must_use]
pub fn minimum(mode: VolumeMode) -> u64 {
    match mode {
        VolumeMode::Block => ALIGNMENT_BYTES,
        VolumeMode::Filesystem(FsType::Ext4) => EXT4_MINIMUM_BYTES,
        VolumeMode::Filesystem(FsType::Xfs) => XFS_MINIMUM_BYTES,
    }
}

fn round_up(bytes: u64) -> Result<u64, Failure> {
    bytes
        .checked_next_multiple_of(ALIGNMENT_BYTES)
        .filter(|rounded| *rounded <= MAXIMUM_BYTES)
        .ok_or_else(|| {
            Failure::new(
                Kind::OutOfRange,
                format!("{bytes} bytes, rounded up to 1 MiB, are more than CSI can express"),
            )
        })
}

fn unsigned(field: &str, bytes: i64) -> Result<u64, Failure> {
    u64::try_from(bytes).map_err(|_negative| {
        Failure::invalid(format!("capacity_range: {field} {bytes} is negative"))
    })
}

#[cfg(test)]
mod tests;
