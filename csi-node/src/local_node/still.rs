//! Copying a volume that somebody may write to, where blocks cannot be shared: only what is proved to be one moment is kept.
//!
//! | The volume is | how a copy is known to be one moment |
//! |---|---|
//! | not attached, or attached and used by nobody | nothing was written, see below |
//! | a mounted filesystem | it is frozen meanwhile, if the copy takes no longer than that, which shows after half a second; else as a published device |
//! | a published device | nothing was written, see below: a guest that is idle, stopped, or frozen by KubeVirt |
//! | mounted in a container alone | refused: what is in memory there cannot be written out |
//!
//! *Nothing was written* from before the copy until after it: the counters of every writable device on the image are the same,
//! nothing is on its way in any of them, there is no other device, and size and times of the image are the same. That is known
//! only at the end. A write ends the copy as soon as it is seen; then it is tried once more. Whoever mounts or unmounts the
//! volume ends it too and does not wait: the caller is asked to come again.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use pool::attach::freeze::{FreezeGuard, LONGEST};
use pool::attach::loop_device::{self, ImageKey, LoopDevice, Usage, Writes};
use pool::record::VolumeRecord;
use pool::{Context, Error, ErrorKind, Result};
use snapshot_engine::Watch;

use super::progress::{Pace, Running, time_for};
use super::quiet::{open_mount, write_out};

/// The freeze ends by itself after [`LONGEST`]; a copy has to be over well before.
const MARGIN: Duration = Duration::from_millis(500);
/// What a disk can copy at best while a filesystem is frozen, in bytes. Of more than that nobody's writes are held back for
/// nothing; nor, once it is known how fast this disk is, of what that takes too long for.
const MOST_WHILE_FROZEN: u64 = 16 << 30;
/// Files are stamped with the time of the kernel's last tick, so a change is seen for sure only when the one before is older.
const TICK: Duration = Duration::from_millis(50);

/// A copy that is one moment.
#[derive(Debug)]
pub(super) struct Copied<T> {
    /// What the caller made.
    pub(super) made: T,
    /// How long writers were held back.
    pub(super) held: Duration,
}

/// How a mounted filesystem is kept from being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Freeze,
    Watch,
}

enum Ended<T> {
    Copied(Copied<T>),
    /// Something was written, or might have been: what, for people.
    Disturbed(String),
}

/// Lets `make` copy the image `live` of `source`, and answers only with what is proved to be one moment. `make` may be called
/// twice, and starts from nothing each time.
///
/// # Errors
/// `Precondition` when the volume is written to all the time: it says what to do; `Busy` when somebody mounts or unmounts it;
/// what `make` answers.
pub(super) fn copy<T>(
    source: &VolumeRecord,
    live: &File,
    running: &Running<'_>,
    mut make: impl FnMut(&Watch<'_>) -> Result<T>,
) -> Result<Copied<T>> {
    match attempt(source, live, running, Way::Freeze, &mut make)? {
        Ended::Copied(copied) => return Ok(copied),
        Ended::Disturbed(how) => {
            tracing::info!(volume = %source.id, how, "the copy was disturbed; it is tried once more");
        }
    }
    match attempt(source, live, running, Way::Watch, &mut make)? {
        Ended::Copied(copied) => Ok(copied),
        Ended::Disturbed(how) => Err(writable(source, &how)),
    }
}

fn attempt<T>(
    source: &VolumeRecord,
    live: &File,
    running: &Running<'_>,
    way: Way,
    make: &mut impl FnMut(&Watch<'_>) -> Result<T>,
) -> Result<Ended<T>> {
    let hold = Hold::begin(source, live, running, way)?;
    let pace = Cell::new(Pace::begin());
    let too_slow = Cell::new(false);
    let in_time = || {
        let arrives = |deadline| pace.get().arrives(deadline, Instant::now());
        too_slow.set(!hold.deadline.is_none_or(arrives));
        !too_slow.get()
    };
    let made = match hold.changed(live)? {
        // In the moment in which it begins already.
        Some(how) => return hold.end().map(|_held| Ended::Disturbed(how)),
        None => make(&Watch {
            deadline: hold.deadline,
            keep_going: &|| {
                running.may_go_on()
                    && !running.is_wanted(source.id.as_str())
                    && in_time()
                    && matches!(hold.changed(live), Ok(None))
            },
            progress: &|done, total| {
                running.at(done, total);
                let mut now = pace.get();
                now.at(done, total);
                pace.set(now);
            },
        }),
    };
    let changed = hold.changed(live)?;
    let strangers = hold.strangers(live)?;
    let overdue = too_slow.get()
        || hold
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline);
    let (held, unbroken) = hold.end()?;
    running.was(pace.get());
    let disturbed = changed.or(strangers).or_else(|| {
        // A copy that was complete while the freeze held is good, however close to its end.
        let late = !unbroken || (made.is_err() && overdue);
        late.then(|| "cannot be held still for as long as a copy takes".to_owned())
    });
    match (made, disturbed) {
        (Ok(made), None) => Ok(Ended::Copied(Copied { made, held })),
        (Err(error), _) if !running.may_go_on() => Err(error),
        (Err(_), _) if running.is_wanted(source.id.as_str()) => Err(wanted(source)),
        (_, Some(how)) => Ok(Ended::Disturbed(how)),
        (Err(error), None) => Err(error),
    }
}

/// A volume that is held still, or watched.
struct Hold {
    guard: Option<FreezeGuard>,
    began: Instant,
    deadline: Option<Instant>,
    devices: Vec<LoopDevice>,
    before: Print,
    used: String,
}

impl Hold {
    fn begin(source: &VolumeRecord, live: &File, running: &Running<'_>, way: Way) -> Result<Self> {
        let devices = writable_devices(live)?;
        let began = Instant::now();
        let mut hold = Self {
            guard: None,
            began,
            deadline: None,
            devices: Vec::new(),
            before: Print::default(),
            used: "attached".to_owned(),
        };
        for device in &devices {
            write_out(device)?;
            match loop_device::usage(device)? {
                Usage::None if loop_device::is_claimed(device)? => {
                    return Err(writable(source, "is mounted in a container alone"));
                }
                Usage::None => {}
                Usage::Mounted(at) => {
                    hold.used = format!("mounted at {}", at.display());
                    hold.mounted(device, live, running, way)?;
                }
                Usage::Published(at) => hold.used = format!("published at {}", at.display()),
                Usage::Held(number) => hold.used = format!("held by /dev/loop{number}"),
            }
        }
        hold.devices = devices;
        settle(live)?;
        hold.before = Print::take(live, &hold.devices)?;
        Ok(hold)
    }

    fn mounted(
        &mut self,
        device: &LoopDevice,
        live: &File,
        running: &Running<'_>,
        way: Way,
    ) -> Result<()> {
        let mount_point = open_mount(device)?;
        let length = live.metadata().during("look at the source image")?.len();
        let bytes = snapshot_engine::data_bytes(live, length)?;
        let longest = LONGEST.saturating_sub(MARGIN);
        let fits = match running.usual_speed() {
            Some(speed) => time_for(bytes, speed) <= longest,
            None => bytes <= MOST_WHILE_FROZEN,
        };
        if way == Way::Freeze && fits {
            match FreezeGuard::freeze(&mount_point) {
                Ok(guard) => {
                    self.deadline = Some(Instant::now() + longest);
                    self.guard = Some(guard);
                    return Ok(());
                }
                Err(error) => {
                    tracing::info!(%error, "the filesystem cannot be frozen; the copy has to find it quiet");
                }
            }
        }
        nix::unistd::syncfs(&mount_point).during("write out the mounted filesystem")
    }

    /// What has changed since it began, for people.
    fn changed(&self, live: &File) -> Result<Option<String>> {
        let now = Print::take(live, &self.devices)?;
        if !now.counted() {
            return Ok(Some(format!(
                "is {} and its writes are not counted (queue/iostats of the loop device is 0)",
                self.used
            )));
        }
        if now.is_quiet() && now == self.before {
            return Ok(None);
        }
        Ok(Some(format!(
            "is {} and was written to while it was copied",
            self.used
        )))
    }

    /// A device that was not there when it began.
    fn strangers(&self, live: &File) -> Result<Option<String>> {
        let now = writable_devices(live)?;
        let known =
            |device: &LoopDevice| self.devices.iter().any(|old| old.number == device.number);
        let new = now.iter().find(|device| !known(device));
        Ok(new.map(|device| {
            format!(
                "was attached to {} while it was copied",
                device.path().display()
            )
        }))
    }

    /// Lets writers go on: how long they were held back, and whether that was without a break until now.
    fn end(self) -> Result<(Duration, bool)> {
        match self.guard {
            None => Ok((Duration::ZERO, true)),
            Some(guard) => {
                let unbroken = guard.thaw()?;
                Ok((self.began.elapsed(), unbroken))
            }
        }
    }
}

/// Everything that changes with a write to an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Print {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    writes: Vec<Option<Writes>>,
}

impl Print {
    fn take(live: &File, devices: &[LoopDevice]) -> Result<Self> {
        let writes = devices
            .iter()
            .map(loop_device::writes)
            .collect::<Result<_>>()?;
        let metadata = live.metadata().during("look at the source image")?;
        Ok(Self {
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            writes,
        })
    }

    fn counted(&self) -> bool {
        self.writes.iter().all(Option::is_some)
    }

    fn is_quiet(&self) -> bool {
        self.writes.iter().flatten().all(Writes::is_quiet)
    }
}

fn writable_devices(live: &File) -> Result<Vec<LoopDevice>> {
    let mut devices = loop_device::find(ImageKey::of(live)?)?;
    devices.retain(|device| !device.read_only);
    Ok(devices)
}

/// Waits until a change of the image from now on gives it another time than it has.
fn settle(live: &File) -> Result<()> {
    let modified = live
        .metadata()
        .and_then(|metadata| metadata.modified())
        .during("look at the source image")?;
    // A time in the future is another than any that a write gives now.
    let age = SystemTime::now().duration_since(modified).unwrap_or(TICK);
    thread::sleep(TICK.saturating_sub(age));
    Ok(())
}

fn writable(source: &VolumeRecord, how: &str) -> Error {
    Error::new(
        ErrorKind::Precondition,
        format!(
            "the volume {} {how}, and this pool's filesystem cannot share blocks between files, so a copy of it could be torn; \
             nothing was kept. Stop the pod or VM that uses it, or hold it still (a VM with the guest agent is frozen for a \
             snapshot), and try again; or use a pool on XFS (reflink) or Btrfs",
            source.id
        ),
    )
}

fn wanted(source: &VolumeRecord) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!(
            "the copy of the volume {} was given up because a pod begins or ends to use it; nothing was kept. Try again",
            source.id
        ),
    )
}
