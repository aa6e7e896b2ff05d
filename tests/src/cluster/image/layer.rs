//! Tar archives that depend on nothing but names, modes and contents.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header, HeaderMode};

/// A tar archive under way. Everything in it belongs to root and is as old as time.
pub(super) struct Tar<W: Write> {
    builder: Builder<W>,
}

impl<W: Write> Tar<W> {
    pub(super) fn new(out: W) -> Self {
        let mut builder = Builder::new(out);
        builder.mode(HeaderMode::Deterministic);
        Self { builder }
    }

    pub(super) fn file(&mut self, name: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
        let mut header = header(EntryType::Regular, mode);
        header.set_size(u64::try_from(bytes.len())?);
        self.builder.append_data(&mut header, name, bytes)?;
        Ok(())
    }

    fn folder(&mut self, name: &Path, mode: u32) -> Result<()> {
        let mut header = header(EntryType::Directory, mode);
        self.builder.append_data(&mut header, name, &[][..])?;
        Ok(())
    }

    fn link(&mut self, name: &Path, target: &Path) -> Result<()> {
        let mut header = header(EntryType::Symlink, 0o777);
        self.builder.append_link(&mut header, name, target)?;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<W> {
        Ok(self.builder.into_inner()?)
    }
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// The tree below `root` as one tar archive.
pub(super) fn tar(root: &Path) -> Result<Vec<u8>> {
    let mut tar = Tar::new(Vec::new());
    add(&mut tar, root, Path::new(""))?;
    tar.finish()
}

fn add(tar: &mut Tar<Vec<u8>>, root: &Path, folder: &Path) -> Result<()> {
    let here = root.join(folder);
    let entries = std::fs::read_dir(&here).with_context(|| here.display().to_string())?;
    let mut names = entries
        .map(|entry| Ok(folder.join(entry?.file_name())))
        .collect::<Result<Vec<PathBuf>>>()?;
    names.sort();
    for name in names {
        let path = root.join(&name);
        let metadata = path.symlink_metadata()?;
        let mode = metadata.permissions().mode() & 0o7777;
        let kind = metadata.file_type();
        if kind.is_dir() {
            tar.folder(&name, mode)?;
            add(tar, root, &name)?;
        } else if kind.is_symlink() {
            tar.link(&name, &std::fs::read_link(&path)?)?;
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            tar.file(&name, mode, &bytes)?;
        } else {
            bail!("{} is no file, folder or link", path.display());
        }
    }
    Ok(())
}

/// `bytes` compressed, without a name or a time in the header.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}
