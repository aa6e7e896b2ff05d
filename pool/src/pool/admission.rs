//! Who gets the last gigabyte: one request at a time is measured and entered.

use nix::sys::statvfs::fstatvfs;

use super::{Filesystem, Pool};
use crate::capacity::{self, Figures, Policy};
use crate::error::{Context, Error, Result};
use crate::measure;
use crate::size::MIB;

/// What an operation will come to hold, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Want {
    /// Sizes of volumes.
    pub(super) volume_sizes: u64,
    /// Charges of snapshots.
    pub(super) snapshot_charges: u64,
    /// What is allocated at once although no volume's size covers it.
    pub(super) pending: u64,
}

/// A pool's capacity as people and schedulers ask for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// The figures.
    pub figures: Figures,
    /// The rules.
    pub policy: Policy,
    /// Whether what is promised is kept whatever guests write (XFS and ext4, at ratio 1.0 or below).
    pub is_promise: bool,
}

impl Usage {
    /// What can still be promised, in bytes, whole MiB.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.figures.available(&self.policy)
    }
}

/// Room that was entered for an operation. Given back when dropped, by which time the object is in the index or gone.
#[derive(Debug)]
pub(super) struct Reservation<'pool> {
    pool: &'pool Pool,
    want: Want,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.pool.state().reserved.subtract(self.want);
    }
}

impl Reservation<'_> {
    /// Lets it be for `want` instead, if that fits; else it stays what it is.
    pub(super) fn change_to(&mut self, want: Want) -> Result<()> {
        let pool = self.pool;
        let _one_at_a_time = pool
            .admission
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        pool.state().reserved.subtract(self.want);
        let admitted = pool.admit(want);
        if admitted.is_ok() {
            self.want = want;
        }
        pool.state().reserved.add(self.want);
        admitted
    }
}

impl Want {
    fn add(&mut self, other: Self) {
        self.volume_sizes += other.volume_sizes;
        self.snapshot_charges += other.snapshot_charges;
        self.pending += other.pending;
    }

    fn subtract(&mut self, other: Self) {
        self.volume_sizes = self.volume_sizes.saturating_sub(other.volume_sizes);
        self.snapshot_charges = self.snapshot_charges.saturating_sub(other.snapshot_charges);
        self.pending = self.pending.saturating_sub(other.pending);
    }

    fn total(self) -> u64 {
        self.volume_sizes + self.snapshot_charges.max(self.pending)
    }
}

/// How closely our own images are looked at. Each step is dearer and allows at least as much.
#[derive(Clone, Copy)]
enum Look {
    None,
    Quick,
    Exact,
}

impl Pool {
    /// How full the pool is. Looks at every image, and at the extents of those that can share blocks.
    ///
    /// # Errors
    /// The kernel's.
    pub fn usage(&self) -> Result<Usage> {
        let figures = self.figures(Want::default(), Look::Exact)?;
        let filesystem = self.filesystem()?;
        Ok(Usage {
            figures,
            policy: self.policy,
            is_promise: matches!(filesystem, Filesystem::Xfs | Filesystem::Ext4)
                && self.policy.overcommit <= 1.0,
        })
    }

    /// Enters `want`, if it fits; nothing always does.
    pub(super) fn reserve(&self, want: Want) -> Result<Reservation<'_>> {
        let mut reservation = self.enter(Want::default());
        if want != Want::default() {
            reservation.change_to(want)?;
        }
        Ok(reservation)
    }

    /// Whether there is room for `want`. By whoever holds the lock, until it is entered.
    fn admit(&self, want: Want) -> Result<()> {
        if self.fits(want)? {
            return Ok(());
        }
        // What was deleted still takes room until it is freed. What cannot be is told by whoever empties the trash; here the
        // question is only whether there is room.
        if let Err(error) = self.empty_trash() {
            tracing::debug!(%error, "room is looked for without all of the trash");
        }
        if self.fits(want)? {
            return Ok(());
        }
        let figures = self.figures(Want::default(), Look::Exact)?;
        Err(capacity::refusal(want.total(), &figures, &self.policy))
    }

    /// "No space left" also means that a filesystem of fixed tables has no inode left: then freeing blocks does not help.
    pub(super) fn name_what_ran_out(&self, error: Error) -> Error {
        /// An object takes three; what was cleaned up after the failure is free again.
        const FEW: u64 = 8;
        let Ok(disk) = fstatvfs(self.layout.root.as_file()) else {
            return error;
        };
        let has_room = disk.blocks_free() * disk.fragment_size() > MIB;
        let out_of_inodes = disk.files() > 0 && disk.files_free() < FEW;
        if error.errno() == Some(libc::ENOSPC) && has_room && out_of_inodes {
            return error.context(format!(
                "all {} inodes of the pool's filesystem are used, though it has free blocks. Delete volumes or snapshots, or make the filesystem anew with more inodes",
                disk.files()
            ));
        }
        error
    }

    pub(super) fn enter(&self, want: Want) -> Reservation<'_> {
        self.state().reserved.add(want);
        Reservation { pool: self, want }
    }

    fn fits(&self, want: Want) -> Result<bool> {
        for look in [Look::None, Look::Quick, Look::Exact] {
            let figures = self.figures(want, look)?;
            if figures.committed() <= figures.limit(&self.policy) {
                return Ok(true);
            }
            if figures.charged() > figures.limit(&self.policy)
                && figures.by_growth() > figures.limit(&self.policy)
            {
                // No closer look at our own images can help.
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// The order matters: what guests write and what others delete in between may only make the answer more careful.
    /// Charges first, then the trash, then our own images, then the filesystem.
    fn figures(&self, want: Want, look: Look) -> Result<Figures> {
        let (charges, index) = {
            let state = self.state();
            let mut charges = state.reserved;
            charges.add(Want {
                volume_sizes: state.index.volume_sizes(),
                snapshot_charges: state.index.snapshot_charges(),
                pending: 0,
            });
            let index = match look {
                Look::None => None,
                Look::Quick | Look::Exact => Some(state.index.share()),
            };
            (charges, index)
        };
        let deleted = measure::deleted(&self.layout)?;
        let ours = match (look, &index) {
            (Look::Quick, Some(index)) => measure::quick(&self.layout, index, &deleted),
            (Look::Exact, Some(index)) => measure::exact(&self.layout, index, &deleted),
            _ => 0,
        };
        let disk = fstatvfs(self.layout.root.as_file()).during("look at the pool's free space")?;
        let unit = disk.fragment_size();
        Ok(Figures {
            size: disk.blocks() * unit,
            used: (disk.blocks() - disk.blocks_free()) * unit,
            volume_sizes: charges.volume_sizes + want.volume_sizes,
            snapshot_charges: charges.snapshot_charges + want.snapshot_charges,
            pending: charges.pending + want.pending,
            deleted: deleted.allocated(),
            ours,
        })
    }
}
