//! The unix socket: only root may use it, and it is there only while somebody serves it.

use std::fs::{File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

/// The longest path that a client can connect to (`sun_path` in `unix(7)`, without its last zero).
const LONGEST: usize = 107;

/// A socket's file, which is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Listens at `unix:///path`. A file left by a killed server is replaced; a living server is left alone.
    ///
    /// The socket is made under another name, closed to everybody else, and renamed: nobody can connect in between.
    ///
    /// # Errors
    /// When `listen` is no such path, or too long a one; another process serves it, or the file cannot be made.
    pub fn bind(listen: &str) -> anyhow::Result<(Self, UnixListenerStream)> {
        let path = parse(listen)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)
                .with_context(|| format!("make the folder {}", parent.display()))?;
        }
        refuse_if_served(&path)?;
        // The kernel binds to short paths only: this one is short whatever the folder is called.
        let folder = path.parent().unwrap_or(&path);
        let folder = File::open(folder).with_context(|| format!("open {}", folder.display()))?;
        let aside = aside(&folder, &path);
        remove_file(&aside)?;
        let listener = UnixListener::bind(&aside)
            .with_context(|| format!("make a socket beside {}", path.display()))?;
        std::fs::set_permissions(&aside, Permissions::from_mode(0o600))
            .context("close the socket to others")?;
        let inode = std::fs::symlink_metadata(&aside)
            .context("look at the socket")?
            .ino();
        put_in_place(&aside, &path)?;
        Ok((Self { path, inode }, UnixListenerStream::new(listener)))
    }

    /// Whether the file is still there, and still this socket's.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Not if a later server has put its own there.
        if self.is_in_place()
            && let Err(error) = remove_file(&self.path)
        {
            tracing::warn!(error = format!("{error:#}"), "the socket stays behind");
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a socket is not data: it need not be durable"
)]
fn put_in_place(aside: &Path, path: &Path) -> anyhow::Result<()> {
    std::fs::rename(aside, path).with_context(|| format!("put the socket at {}", path.display()))
}

fn parse(listen: &str) -> anyhow::Result<PathBuf> {
    let path = listen.strip_prefix("unix://").map(PathBuf::from);
    match path {
        Some(path) if path.as_os_str().len() > LONGEST => bail!(
            "--listen {listen:?}: the path has {} bytes, and the kernel takes {LONGEST} at most",
            path.as_os_str().len()
        ),
        Some(path) if path.is_absolute() && path.file_name().is_some() => Ok(path),
        _ => bail!(
            "--listen {listen:?}: give unix:// and an absolute path, like unix:///run/vd/csi.sock"
        ),
    }
}

fn refuse_if_served(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::FileTypeExt;

    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        bail!(
            "{} exists and is not a socket; it is left alone",
            path.display()
        );
    }
    if UnixStream::connect(path).is_ok() {
        bail!("{} is served by another process", path.display());
    }
    Ok(())
}

/// Hidden, because kubelet looks at every other socket that appears in its folder of plugins.
fn aside(folder: &File, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let hash = blake3::hash(name).to_hex();
    PathBuf::from(format!(
        "/proc/self/fd/{}/.{}.{}",
        folder.as_raw_fd(),
        &hash[..16],
        std::process::id()
    ))
}

fn remove_file(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path of `length` bytes in `folder`.
    fn path_of(folder: &Path, length: usize) -> PathBuf {
        let left = length - folder.as_os_str().len() - 1;
        folder.join("s".repeat(left))
    }

    #[tokio::test]
    async fn every_path_works_that_a_client_can_connect_to() {
        let folder = tempfile::tempdir().unwrap();
        for length in [60, 90, 99, 100, 106, 107] {
            let path = path_of(folder.path(), length);
            let listen = format!("unix://{}", path.display());
            let (socket, _connections) = Socket::bind(&listen).unwrap();
            assert!(socket.is_in_place());
            UnixStream::connect(&path).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            drop(socket);
            let left = std::fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(left, 0, "{length}");
        }
        let path = path_of(folder.path(), 108);
        let refused = Socket::bind(&format!("unix://{}", path.display())).unwrap_err();
        assert!(refused.to_string().contains("108 bytes"), "{refused}");
    }
}
