//! Is an image all zeroes? The check before mkfs. It can only refuse; the record alone decides that mkfs runs.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::error::{Context, Error, ErrorKind, Result};

const CHUNK: usize = 1 << 20;

/// Refuses an image with any byte that is not zero. Holes and preallocated blocks are not read, so a fresh image of any
/// size takes a single call. This is stricter than looking for known signatures, and needs no list of them.
///
/// # Errors
/// `Corrupt` that names the first such byte; `Io`.
pub fn refuse_unless_blank(image: &File) -> Result<()> {
    let end = image.metadata().during("examine the image")?.len();
    let mut buffer = vec![0; CHUNK];
    let mut from = 0;
    while let Some(data) = seek(image, from, Whence::SeekData)? {
        let hole = seek(image, data, Whence::SeekHole)?.unwrap_or(end);
        refuse_data(image, data, hole, &mut buffer)?;
        from = hole;
    }
    Ok(())
}

fn refuse_data(image: &File, start: u64, end: u64, buffer: &mut [u8]) -> Result<()> {
    let mut at = start;
    while at < end {
        let wanted = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = image
            .read_at(&mut buffer[..wanted], at)
            .during("read the image")?;
        if read == 0 {
            break;
        }
        if let Some(found) = buffer[..read].iter().position(|byte| *byte != 0) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the record says that this volume was never formatted, but byte {} of its image is not zero; nothing was changed: \
                     compare record and image by hand, or delete the volume if its content is not needed",
                    at + found as u64
                ),
            ));
        }
        at += read as u64;
    }
    Ok(())
}

/// The next data or hole at or behind `from`; `None` behind the end.
pub(super) fn seek(image: &File, from: u64, whence: Whence) -> Result<Option<u64>> {
    let from = i64::try_from(from)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("seek in the image: {error}")))?;
    match lseek(image, from, whence) {
        Ok(at) => Ok(u64::try_from(at).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(Error::io("look for data in the image", errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use nix::fcntl::{FallocateFlags, fallocate};

    use super::*;

    fn image() -> File {
        let image = tempfile::tempfile().unwrap();
        image.set_len(64 << 20).unwrap();
        image
    }

    #[test]
    fn holes_preallocated_blocks_and_written_zeroes_are_blank() {
        let image = image();
        refuse_unless_blank(&image).unwrap();
        fallocate(&image, FallocateFlags::empty(), 0, 8 << 20).unwrap();
        refuse_unless_blank(&image).unwrap();
        image.write_all_at(&[0; 5000], 12345).unwrap();
        refuse_unless_blank(&image).unwrap();
    }

    #[test]
    fn a_single_byte_anywhere_is_refused_and_named() {
        for at in [0, 4095, 33_554_433, (64 << 20) - 1] {
            let image = image();
            image.write_all_at(&[1], at).unwrap();
            let error = refuse_unless_blank(&image).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(
                error.to_string().contains(&format!("byte {at} ")),
                "{error}"
            );
        }
    }
}
