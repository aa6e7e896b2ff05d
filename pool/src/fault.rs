//! Named points in the durable operations where a test can stop the process or make it fail.
//!
//! The list is the code's own: an operation calls [`reached`] with a [`Step`], and crash tests walk [`Step::ALL`]. In a
//! build without the feature `fault-injection` (every shipped one) `reached` is an empty function.
//!
//! `VD_FAULT=<step>:<action>` chooses one step; actions: `kill` (SIGKILL to ourselves), `power` (shut the pool's
//! filesystem down without writing its log, then SIGKILL), `hang` (SIGSTOP to ourselves), `eio`, `enospc`, `edquot`,
//! `erofs` (the step fails). With `once-` before it, an action is done when the step is first reached, and never again.

macro_rules! steps {
    ($( $operation:ident { $( $variant:ident = $name:literal ),+ $(,)? } )+) => {
        /// A point in a durable operation: everything before it was done, nothing after it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "each step is explained where its operation numbers it")]
        pub enum Step { $( $( $variant, )+ )+ }

        /// The durable operations.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum Operation { $( $operation, )+ }

        impl Step {
            /// Every step there is.
            pub const ALL: &'static [Self] = &[ $( $( Self::$variant, )+ )+ ];

            /// The step's name, as `VD_FAULT` and `docs/crash-consistency.md` use it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( $( Self::$variant => $name, )+ )+ }
            }

            /// The operation the step belongs to.
            #[must_use]
            pub fn operation(self) -> Operation {
                match self { $( $( Self::$variant => Operation::$operation, )+ )+ }
            }
        }
    };
}

steps! {
    CreateVolume {
        CreateReserved = "create.reserved",
        CreateFolderMade = "create.folder-made",
        CreateImageMade = "create.image-made",
        CreateImageSynced = "create.image-synced",
        CreateRecordWritten = "create.record-written",
        CreatePublished = "create.published",
        CreateParentsSynced = "create.parents-synced",
    }
    FillVolume {
        FillStarted = "fill.started",
        FillDone = "fill.done",
    }
    DeleteVolume {
        DeleteChecked = "delete.checked",
        DeleteMoved = "delete.moved",
        DeleteParentsSynced = "delete.parents-synced",
    }
    EmptyTrash {
        TrashSliceFreed = "trash.slice-freed",
        TrashFilesRemoved = "trash.files-removed",
        TrashFolderRemoved = "trash.folder-removed",
    }
    ExpandVolume {
        ExpandReserved = "expand.reserved",
        ExpandIntentRecorded = "expand.intent-recorded",
        ExpandImageGrown = "expand.image-grown",
        ExpandImageSynced = "expand.image-synced",
        ExpandDeviceGrown = "expand.device-grown",
        ExpandRecorded = "expand.recorded",
    }
    CreateSnapshot {
        SnapshotReserved = "snapshot.reserved",
        SnapshotFolderMade = "snapshot.folder-made",
        SnapshotFrozen = "snapshot.frozen",
        SnapshotCut = "snapshot.cut",
        SnapshotThawed = "snapshot.thawed",
        SnapshotMetadataWritten = "snapshot.metadata-written",
        SnapshotImageSynced = "snapshot.image-synced",
        SnapshotRecordWritten = "snapshot.record-written",
        SnapshotVerified = "snapshot.verified",
        SnapshotPublished = "snapshot.published",
        SnapshotParentsSynced = "snapshot.parents-synced",
    }
    RepackSnapshot {
        RepackReserved = "repack.reserved",
        RepackFolderMade = "repack.folder-made",
        RepackStarted = "repack.started",
        RepackImageWritten = "repack.image-written",
        RepackImageSynced = "repack.image-synced",
        RepackVerified = "repack.verified",
        RepackRecordWritten = "repack.record-written",
        RepackExchanged = "repack.exchanged",
        RepackParentsSynced = "repack.parents-synced",
        RepackOldMoved = "repack.old-moved",
    }
    DeleteSnapshot {
        DeleteSnapshotChecked = "delete-snapshot.checked",
        DeleteSnapshotMoved = "delete-snapshot.moved",
        DeleteSnapshotParentsSynced = "delete-snapshot.parents-synced",
    }
    DigestSnapshot {
        DigestComputed = "digest.computed",
        DigestRecorded = "digest.recorded",
    }
    ScrubSnapshot {
        ScrubVerified = "scrub.verified",
        ScrubRecorded = "scrub.recorded",
    }
    MarkSnapshot {
        MarkFound = "mark.found",
        MarkRecorded = "mark.recorded",
    }
    ReplaceRecord {
        RecordTemporaryWritten = "record.temporary-written",
        RecordReplaced = "record.replaced",
        RecordFolderSynced = "record.folder-synced",
    }
    StageVolume {
        StageRecorded = "stage.recorded",
        StageFormatting = "stage.formatting",
        StageMade = "stage.made",
        StageFormatted = "stage.formatted",
        StageAttached = "stage.attached",
        StageChecked = "stage.checked",
        StageMounted = "stage.mounted",
        StageGrown = "stage.grown",
    }
    PublishVolume {
        PublishTargetMade = "publish.target-made",
        PublishBound = "publish.bound",
        PublishDone = "publish.done",
    }
    UnpublishVolume {
        UnpublishUnmounted = "unpublish.unmounted",
        UnpublishTargetRemoved = "unpublish.target-removed",
    }
    UnstageVolume {
        UnstageUnmounted = "unstage.unmounted",
        UnstageDetached = "unstage.detached",
    }
    Recovery {
        RecoveryOwned = "recovery.owned",
        RecoveryThawed = "recovery.thawed",
        RecoverySwept = "recovery.swept",
        RecoveryRead = "recovery.read",
        RecoveryRolledForward = "recovery.rolled-forward",
    }
}

#[cfg(not(feature = "fault-injection"))]
mod action {
    use super::Step;
    use crate::error::Result;

    /// Says that `step` was reached. Does nothing in this build.
    ///
    /// # Errors
    /// None in this build.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "must leave no trace in a shipped build"
    )]
    pub fn reached(_step: Step) -> Result<()> {
        Ok(())
    }

    /// Names the filesystem that the action `power` shuts down. Does nothing in this build.
    pub fn set_pool(_root: &std::fs::File) {}
}

#[cfg(feature = "fault-injection")]
mod action {
    use std::fs::File;
    use std::io;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::sys::signal::{Signal, kill, raise};
    use nix::unistd::Pid;

    use super::Step;
    use crate::error::{Error, Result};

    static CHOSEN: OnceLock<Option<(String, String)>> = OnceLock::new();
    static DONE: AtomicBool = AtomicBool::new(false);
    static POOL: OnceLock<File> = OnceLock::new();

    /// Says that `step` was reached, and does to this process what `VD_FAULT` asks for there.
    ///
    /// # Errors
    /// The error that `VD_FAULT` names.
    pub fn reached(step: Step) -> Result<()> {
        let chosen = CHOSEN.get_or_init(|| {
            let text = std::env::var("VD_FAULT").ok()?;
            let (name, action) = text.split_once(':')?;
            Some((name.to_owned(), action.to_owned()))
        });
        let Some((_, action)) = chosen.as_ref().filter(|(name, _)| name == step.name()) else {
            return Ok(());
        };
        match action.strip_prefix("once-") {
            Some(_) if DONE.swap(true, Ordering::Relaxed) => Ok(()),
            Some(action) => act(step, action),
            None => act(step, action),
        }
    }

    /// Names the filesystem that the action `power` shuts down.
    pub fn set_pool(root: &File) {
        if let Ok(root) = root.try_clone() {
            // A second pool in one process keeps the first: tests open one.
            let _first = POOL.get_or_init(|| root);
        }
    }

    fn act(step: Step, action: &str) -> Result<()> {
        let errno = match action {
            "kill" => return stop(),
            "hang" => return hang(),
            "power" => {
                if let Some(pool) = POOL.get() {
                    crate::sys::shutdown_xfs(pool)
                        .map_err(|error| Error::io("pull the plug", error))?;
                }
                return stop();
            }
            "eio" => libc::EIO,
            "enospc" => libc::ENOSPC,
            "edquot" => libc::EDQUOT,
            "erofs" => libc::EROFS,
            _ => return Ok(()),
        };
        Err(Error::io(
            format!("injected fault at {}", step.name()),
            io::Error::from_raw_os_error(errno),
        ))
    }

    fn stop() -> Result<()> {
        kill(Pid::this(), Signal::SIGKILL)
            .map_err(|errno| Error::io("kill this process", errno.into()))?;
        loop {
            std::thread::park();
        }
    }

    /// The signal goes to this very thread, which must not run on while the others are stopped.
    fn hang() -> Result<()> {
        raise(Signal::SIGSTOP).map_err(|errno| Error::io("stop this process", errno.into()))
    }
}

pub use action::{reached, set_pool};
