//! A folder with image files, whose mounts and loop devices are gone when a test ends, also when it panics.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use pool::VolumeId;
use pool::attach::filesystem;
use pool::attach::loop_device::{self, Attached, ImageKey, LoopDevice};
use pool::attach::mount::{mount_filesystem, unmount_top};
use pool::attach::mount_options::MountOptions;
use pool::attach::mountinfo::MountTable;
use pool::attach::target::{Target, TargetBase};
use pool::record::{
    Format, FormatState, FsType, Provisioning, Timestamp, VolumeMode, VolumeRecord,
};
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;

/// The device of an image that is a volume of its own.
pub fn attach_image(image: &File, read_only: bool) -> pool::Result<Attached> {
    loop_device::attach(image, &name_of(ImageKey::of(image)?), read_only)
}

pub fn name_of(ImageKey { device, inode }: ImageKey) -> String {
    format!("{device}-{inode}")
}

pub struct Scratch {
    folder: Option<TempDir>,
    images: std::sync::Mutex<Vec<ImageKey>>,
}

impl Scratch {
    pub fn new() -> Self {
        Self {
            folder: Some(TempDir::new_in("/var/tmp").unwrap()),
            images: std::sync::Mutex::default(),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    pub fn image(&self, name: &str, bytes: u64) -> File {
        let image = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path().join(name))
            .unwrap();
        image.set_len(bytes).unwrap();
        self.watch(&image);
        image
    }

    /// Releases the loop devices of this image at the end.
    pub fn watch(&self, image: &File) {
        let key = ImageKey::of(image).unwrap();
        self.images.lock().unwrap().push(key);
    }

    pub fn target(&self, name: &str) -> Target {
        let path = self.path().join(name);
        TargetBase::anywhere()
            .open(path.to_str().unwrap())
            .unwrap()
            .unwrap()
    }

    pub fn folder(&self, name: &str) -> Target {
        let target = self.target(name);
        target.make_folder().unwrap();
        target
    }

    /// An image with a new filesystem.
    pub fn formatted(&self, name: &str, fs: FsType, bytes: u64) -> File {
        let image = self.image(name, bytes);
        let record = record(fs, bytes, Provisioning::Thin);
        filesystem::ensure_made(&image, &record, unformatted(fs), |_state| Ok(())).unwrap();
        image
    }

    /// The filesystem of `image`, mounted for writing at a folder of this name.
    pub fn mounted(&self, image: &File, fs: FsType, name: &str) -> (LoopDevice, Target) {
        let device = attach_image(image, false).unwrap().device;
        let target = self.folder(name);
        let options = MountOptions::default();
        mount_filesystem(&device, fs, &options, &target).unwrap();
        (device, target)
    }

    fn clean(&self) {
        let base = self.path().to_owned();
        let table = MountTable::read().unwrap();
        let mut points: Vec<PathBuf> = table
            .iter()
            .filter(|mount| mount.mount_point.starts_with(&base))
            .map(|mount| mount.mount_point.clone())
            .collect();
        points.reverse();
        for point in points {
            let target = TargetBase::anywhere().open(point.to_str().unwrap());
            let _result = unmount_top(&target.unwrap().unwrap());
        }
        for key in self.images.lock().unwrap().iter() {
            let mut devices = loop_device::find(*key).unwrap();
            devices.reverse();
            for device in devices {
                let _result = loop_device::detach(&device);
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.clean();
        let base = self.path().to_owned();
        let table = MountTable::read().unwrap();
        if table
            .iter()
            .any(|mount| mount.mount_point.starts_with(&base))
        {
            // Never delete through a mount: leave the folder and say so.
            let kept = self.folder.take().unwrap().keep();
            eprintln!("still mounted below {}", kept.display());
        }
    }
}

pub fn unformatted(fs: FsType) -> Format {
    Format {
        fs,
        state: FormatState::Unformatted,
    }
}

pub fn record(fs: FsType, bytes: u64, provisioning: Provisioning) -> VolumeRecord {
    VolumeRecord {
        id: VolumeId::from_name("test"),
        name: "test".into(),
        created: Timestamp(1),
        generation: 1,
        requested_bytes: bytes,
        size_bytes: bytes,
        growing_to_bytes: None,
        provisioning,
        mode: VolumeMode::Filesystem(unformatted(fs)),
        access_modes: vec![],
        source: None,
        staged: false,
        lineage: VolumeId::from_name("test"),
    }
}

pub fn write_file(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

pub fn allocated(image: &File) -> u64 {
    use std::os::unix::fs::MetadataExt;
    image.metadata().unwrap().blocks() * 512
}

pub fn read_file(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}
