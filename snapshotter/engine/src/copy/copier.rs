//! One who copies chunks.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use pool::{Context, Error, ErrorKind, Result};

use super::runs::Chunk;
use super::write_out::WriteOut;
use crate::direct;

/// Two files, opened so that reads and writes go past the page cache.
pub(super) struct Direct {
    source: File,
    target: File,
}

impl Direct {
    /// `None` where that cannot be.
    pub(super) fn open(source: &File, target: &File) -> Option<Self> {
        let opened = direct::open(source, false).and_then(|source| {
            let target = direct::open(target, true)?;
            Ok(Self { source, target })
        });
        if let Err(error) = &opened {
            tracing::debug!(%error, "the copy goes through the page cache");
        }
        opened.ok()
    }
}

/// See the module.
pub(super) struct Copier<'a> {
    source: &'a File,
    target: &'a File,
    /// Past the page cache; short runs, which are written through it nevertheless, are written out.
    direct: Option<(&'a Direct, &'a WriteOut<'a>)>,
    /// Room for a chunk.
    memory: &'a mut [u8],
}

impl<'a> Copier<'a> {
    pub(super) fn new(
        source: &'a File,
        target: &'a File,
        direct: Option<(&'a Direct, &'a WriteOut<'a>)>,
        memory: &'a mut [u8],
    ) -> Self {
        Self {
            source,
            target,
            direct,
            memory,
        }
    }

    /// How many bytes the largest chunk may have.
    pub(super) fn room(&self) -> usize {
        self.memory.len()
    }

    pub(super) fn copy(&mut self, chunk: &Chunk) -> Result<()> {
        let length = usize::try_from(chunk.length()).unwrap_or(usize::MAX);
        let Some(bytes) = self.memory.get_mut(..length) else {
            let text = format!("{length} bytes do not fit into the memory of a copy");
            return Err(Error::new(ErrorKind::Internal, text));
        };
        if let Some((direct, write_out)) = self.direct
            && chunk.is_aligned()
        {
            let target = if chunk.is_long {
                &direct.target
            } else {
                self.target
            };
            match through(bytes, chunk, &direct.source, target) {
                // What the disk under it wants is not what any disk wants.
                Err(error) if error.errno() == Some(Errno::EINVAL as i32) => self.direct = None,
                Ok(()) if !chunk.is_long => return write_out.wrote(chunk),
                done => return done,
            }
        }
        through(bytes, chunk, self.source, self.target)
    }
}

fn through(bytes: &mut [u8], chunk: &Chunk, source: &File, target: &File) -> Result<()> {
    source
        .read_exact_at(bytes, chunk.from.start)
        .context_with(|| format!("read the image at byte {}", chunk.from.start))?;
    target
        .write_all_at(bytes, chunk.to)
        .context_with(|| format!("write the copy at byte {}", chunk.to))
}
