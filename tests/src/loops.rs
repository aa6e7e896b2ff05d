//! The kernel's list of loop devices.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{tools, wait};

/// One attached loop device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// `/dev/loopN`.
    pub name: PathBuf,
    /// The path that the kernel shows for its file; only a hint.
    pub back_file: String,
    /// Device number of the filesystem that the file lies on, `major:minor`.
    pub back_device: String,
    /// The file's inode number.
    pub back_inode: u64,
    /// Refuses writes.
    pub read_only: bool,
    /// Bypasses the page cache.
    pub direct: bool,
    /// The block size it shows.
    pub sector_bytes: u64,
}

/// Every attached loop device.
#[must_use]
pub fn all() -> Vec<Loop> {
    let columns = "NAME,BACK-FILE,BACK-MAJ:MIN,BACK-INO,RO,DIO,LOG-SEC";
    let text = tools::run("losetup", &["--list", "--json", "--output", columns]);
    if text.trim().is_empty() {
        return Vec::new();
    }
    let json: serde_json::Value = serde_json::from_str(&text).expect("losetup prints JSON");
    let entries = json["loopdevices"].as_array().cloned().unwrap_or_default();
    entries.iter().map(parse).collect()
}

/// The loop devices whose file's path is below `folder`.
#[must_use]
pub fn below(folder: &Path) -> Vec<Loop> {
    all()
        .into_iter()
        .filter(|one| Path::new(&one.back_file).starts_with(folder))
        .collect()
}

/// Attaches `file` to a free loop device.
#[track_caller]
#[must_use]
pub fn attach(file: &Path) -> PathBuf {
    let file = file.to_str().expect("a plain path");
    PathBuf::from(tools::run("losetup", &["--find", "--show", file]).trim())
}

/// Detaches the device `name` from the file with inode number `inode`, and waits until it is gone.
///
/// While somebody else has the device open, and be it to list all devices, the kernel only notes the wish. Says whether
/// it is gone.
#[must_use]
pub fn detach(name: &Path, inode: u64) -> bool {
    let ran = tools::attempt("losetup", &[Path::new("--detach"), name]);
    if ran.code != Some(0) {
        eprintln!("{ran}");
    }
    let gone = wait::holds_within(Duration::from_secs(5), || {
        !all()
            .iter()
            .any(|one| one.name == name && one.back_inode == inode)
    });
    if gone {
        remove(name);
    }
    gone
}

/// Takes an unbound device out of the kernel that a driver made for a volume. Those that the kernel itself numbers stay.
fn remove(name: &Path) {
    /// The first number of a volume's device.
    const FIRST: u32 = 4096;
    let number = name
        .to_str()
        .and_then(|name| name.strip_prefix("/dev/loop"));
    let Some(number) = number.and_then(|number| number.parse().ok()) else {
        return;
    };
    if number < FIRST {
        return;
    }
    let control = File::open("/dev/loop-control").expect("open /dev/loop-control");
    // A driver that attaches the volume again at this moment has it.
    let _left_to_it = pool::sys::loop_remove(&control, number);
}

fn parse(entry: &serde_json::Value) -> Loop {
    let text = |column: &str| match &entry[column] {
        serde_json::Value::String(text) => text.trim().to_owned(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    };
    let flag = |column: &str| matches!(text(column).as_str(), "1" | "true");
    Loop {
        name: text("name").into(),
        back_file: text("back-file"),
        back_device: text("back-maj:min"),
        back_inode: text("back-ino").parse().unwrap_or_default(),
        read_only: flag("ro"),
        direct: flag("dio"),
        sector_bytes: text("log-sec").parse().unwrap_or_default(),
    }
}
