//! Where the demo happens: a folder of its own, and a pool folder on a filesystem that shares extents.
//!
//! Unless a pool is given, that filesystem is XFS in a sparse file inside the folder. Whatever happens,
//! [`Workplace::take_apart`] (or at last `Drop`) unmounts and removes what was made here, and
//! nothing else: a folder in which something is still mounted is left and reported, never emptied.

use std::fs::File;
use std::path::{Path, PathBuf};

use ::tests::{loops, mounts};
use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use crate::command;
use crate::figures::{GIB, bytes};

/// Size of the demo's own pool. Only what is written takes space.
const POOL_BYTES: u64 = 12 * GIB;
/// What the demo writes at most, copies by qemu-img included.
const NEEDED_BYTES: u64 = 4 * GIB;
/// What a pool folder holds when it is initialised and empty.
const POOL_FOLDERS: [&str; 4] = ["volumes", "snapshots", "tmp", "trash"];
const POOL_MARKER: &str = ".vd-pool";

/// See the module.
pub(crate) struct Workplace {
    folder: Option<TempDir>,
    path: PathBuf,
    pool: PathBuf,
    given: bool,
    initialised_here: bool,
    scratch: Option<TempDir>,
}

impl Workplace {
    /// Makes the folder; `pool` is the person's own pool folder, if any.
    pub(crate) fn prepare(pool: Option<PathBuf>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("vd-demo-").tempdir();
        let folder = folder.context("make a folder for the demo")?;
        let path = folder.path().canonicalize()?;
        let given = pool.is_some();
        let pool = match pool {
            Some(pool) => pool
                .canonicalize()
                .with_context(|| format!("POOL={}", pool.display()))?,
            None => path.join("pool"),
        };
        let folder = Some(folder);
        Ok(Self {
            folder,
            path,
            pool,
            given,
            initialised_here: false,
            scratch: None,
        })
    }

    /// Makes and mounts the demo's own filesystem, or looks at the given pool.
    ///
    /// # Errors
    /// Not root, too little space, no shared extents.
    pub(crate) async fn set_up(&mut self) -> Result<String> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the demo mounts filesystems and attaches loop devices: run it as root");
        }
        let told = if self.given {
            format!("{}, as given", self.pool.display())
        } else {
            self.make_filesystem().await?;
            format!(
                "XFS with reflink, {}, in a sparse file of the demo's own",
                bytes(POOL_BYTES)
            )
        };
        let free = free_bytes(if self.given { &self.pool } else { &self.path })?;
        if free < NEEDED_BYTES {
            bail!(
                "{} has {} free, the demo needs {}: name another folder with TMPDIR or POOL",
                if self.given {
                    self.pool.display()
                } else {
                    self.path.display()
                },
                bytes(free),
                bytes(NEEDED_BYTES)
            );
        }
        self.initialised_here = !self.pool.join(POOL_MARKER).exists();
        let scratch = tempfile::Builder::new()
            .prefix("vd-demo-")
            .tempdir_in(&self.pool)?;
        prove_reflink(scratch.path()).await?;
        self.scratch = Some(scratch);
        std::fs::create_dir(self.kubelet())?;
        Ok(told)
    }

    /// The pool's folder.
    pub(crate) fn pool(&self) -> &Path {
        &self.pool
    }

    /// Whether the pool still has to be initialised.
    pub(crate) fn is_new_pool(&self) -> bool {
        self.initialised_here
    }

    /// Plays `/var/lib/kubelet`: staging and target paths lie below.
    pub(crate) fn kubelet(&self) -> PathBuf {
        self.path.join("kubelet")
    }

    /// The driver's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join("csi.sock")
    }

    /// What the driver logs.
    pub(crate) fn driver_log(&self) -> PathBuf {
        self.path.join("driver.log")
    }

    /// A folder on the pool's filesystem, beside what belongs to the pool.
    pub(crate) fn scratch(&self) -> Result<&Path> {
        self.scratch
            .as_ref()
            .map(TempDir::path)
            .context("the pool is not set up")
    }

    /// Unmounts and removes everything of the demo.
    ///
    /// # Errors
    /// Names what it found that the driver should have taken away, or could not take away itself.
    pub(crate) fn take_apart(&mut self) -> Result<()> {
        let mut found = Vec::new();
        let pool_mount = self.path.join("pool");
        for mount in mounts::below(&self.path).into_iter().rev() {
            if mount.target != pool_mount {
                found.push(format!("{} was still mounted", mount.target.display()));
                note(
                    &mut found,
                    "unmount",
                    umount2(&mount.target, MntFlags::MNT_DETACH),
                );
            }
        }
        for device in loops::below(&self.pool.join("volumes")) {
            if !self.given {
                found.push(format!("{} was still attached", device.name.display()));
                if !loops::detach(&device.name, device.back_inode) {
                    found.push(format!("{} cannot be detached", device.name.display()));
                }
            }
        }
        if let Some(scratch) = self.scratch.take() {
            note(
                &mut found,
                "remove the demo's folder in the pool",
                scratch.close(),
            );
        }
        if self.given && self.initialised_here {
            self.forget_pool(&mut found);
        }
        if !mounts::at(&pool_mount).is_empty() {
            note(
                &mut found,
                "unmount the demo's pool",
                umount2(&pool_mount, MntFlags::empty()),
            );
        }
        if let Some(folder) = self.folder.take() {
            if mounts::below(&self.path).is_empty() {
                note(&mut found, "remove the demo's folder", folder.close());
            } else {
                found.push(format!(
                    "{} has mounts and was left",
                    folder.keep().display()
                ));
            }
        }
        if found.is_empty() {
            Ok(())
        } else {
            bail!("left behind: {}", found.join("; "))
        }
    }

    async fn make_filesystem(&self) -> Result<()> {
        let image = self.path.join("pool.img");
        File::create(&image)?.set_len(POOL_BYTES)?;
        let image = image.to_string_lossy().into_owned();
        let pool = self.pool.to_string_lossy().into_owned();
        std::fs::create_dir(&self.pool)?;
        let _quiet = command::run("mkfs.xfs", &["-q", "-m", "reflink=1", &image]).await?;
        // mount(8) sets the loop device up so that it goes with the mount.
        let _quiet = command::run("mount", &["-t", "xfs", "-o", "loop", &image, &pool]).await?;
        Ok(())
    }

    /// Makes a pool that the demo initialised an ordinary folder again; what is not empty stays.
    fn forget_pool(&self, found: &mut Vec<String>) {
        for folder in POOL_FOLDERS.map(|name| self.pool.join(name)) {
            if folder.exists() {
                note(
                    found,
                    "remove a folder of the pool",
                    std::fs::remove_dir(&folder),
                );
            }
        }
        let marker = self.pool.join(POOL_MARKER);
        if found.is_empty() && marker.exists() {
            note(
                found,
                "remove the pool's marker",
                std::fs::remove_file(marker),
            );
        }
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if self.folder.is_some()
            && let Err(error) = self.take_apart()
        {
            crate::tell::plain(format!("{error:#}"));
        }
    }
}

fn note<E: std::fmt::Display>(found: &mut Vec<String>, what: &str, outcome: Result<(), E>) {
    if let Err(error) = outcome {
        found.push(format!("{what}: {error}"));
    }
}

fn free_bytes(folder: &Path) -> Result<u64> {
    let stat = statvfs(folder)?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// A snapshot of a running VM needs a filesystem that can share extents; better said now than later.
async fn prove_reflink(folder: &Path) -> Result<()> {
    let (one, two) = (folder.join("reflink-1"), folder.join("reflink-2"));
    let mut file = File::create(&one)?;
    std::io::Write::write_all(&mut file, &[1; 4096])?;
    let outcome = command::run(
        "cp",
        &[
            "--reflink=always".as_ref(),
            one.as_os_str(),
            two.as_os_str(),
        ],
    )
    .await;
    let _told = outcome.context("the demo needs a pool on XFS (with reflink) or Btrfs")?;
    std::fs::remove_file(one)?;
    std::fs::remove_file(two)?;
    Ok(())
}
