//! A node with a pool and kubelet's folder, driven through the Node service as kubelet drives it. Mounts and loop
//! devices are gone when a test ends, also when it panics.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use csi_node::local_node::{SnapshotRequest, VolumeRequest};
use csi_node::pool_handle::PoolHandle;
use csi_node::{LocalNode, NodeService};
use pool::attach::loop_device::{self, ImageKey, LoopDevice};
use pool::attach::mount::unmount_top;
use pool::attach::mountinfo::{Mount, MountTable};
use pool::attach::target::TargetBase;
use pool::record::{Format, FormatState, FsType, Provisioning, Source, VolumeMode, VolumeRecord};
use pool::{Pool, SnapshotId, VolumeId};
use proto::csi::v1;
use proto::csi::v1::node_server::Node as _;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use tempfile::TempDir;
use tonic::{Code, Request, Status};

pub const MIB: u64 = 1 << 20;

pub struct Machine {
    folder: Option<TempDir>,
    path: PathBuf,
    pub node: LocalNode,
    pub service: NodeService,
}

impl Machine {
    pub fn new() -> Self {
        Self::at("/var/tmp")
    }

    /// On a filesystem that cannot share blocks.
    pub fn in_memory() -> Self {
        Self::at("/dev/shm")
    }

    fn at(parent: &str) -> Self {
        let folder = TempDir::new_in(parent).unwrap();
        let pool = folder.path().join("pool");
        let kubelet = folder.path().join("kubelet");
        fs::create_dir(&pool).unwrap();
        fs::create_dir(&kubelet).unwrap();
        pool::init(&pool, "node-1").unwrap();
        let (node, service) = start(&pool, &kubelet);
        Self {
            path: folder.path().to_owned(),
            folder: Some(folder),
            node,
            service,
        }
    }

    /// A machine whose folder belongs to another process.
    pub fn without_folder(path: PathBuf, node: LocalNode, service: NodeService) -> Self {
        Self {
            folder: None,
            path,
            node,
            service,
        }
    }

    /// The node that another process made at `folder`, which it keeps and cleans.
    pub fn borrowed(folder: &Path) -> (LocalNode, NodeService) {
        start(&folder.join("pool"), &folder.join("kubelet"))
    }

    /// Gives the pool up, so that another process may own it.
    pub fn close(&mut self) {
        let (node, service) = start(&self.path().join("none"), &self.kubelet());
        self.node = node;
        self.service = service;
    }

    /// Owns the pool again.
    pub fn open(&mut self) {
        let (node, service) = Self::borrowed(self.path());
        self.node = node;
        self.service = service;
    }

    /// As if the process had been killed and started again.
    pub fn restart(&mut self) {
        self.close();
        self.open();
    }

    /// What a reboot leaves: folders and files, but no mounts and no loop devices.
    pub fn reboot(&mut self) {
        self.release();
        self.restart();
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn kubelet(&self) -> PathBuf {
        self.path().join("kubelet")
    }

    pub fn pool(&self) -> std::sync::Arc<Pool> {
        self.node.pool().unwrap()
    }

    pub async fn volume(&self, name: &str, mode: VolumeMode, bytes: u64) -> Volume<'_> {
        let request = VolumeRequest {
            id: VolumeId::from_name(name),
            name: name.into(),
            requested_bytes: bytes,
            size_bytes: bytes,
            provisioning: Provisioning::Thin,
            mode,
            access_modes: vec![],
            source: None,
        };
        let record = self.node.create_volume(request).await.unwrap();
        self.existing(record.id)
    }

    /// A volume of the same mode with the content of `source`.
    pub async fn copied(&self, name: &str, from: &Volume<'_>, source: Source) -> Volume<'_> {
        let original = from.record();
        let request = VolumeRequest {
            id: VolumeId::from_name(name),
            name: name.into(),
            requested_bytes: original.requested_bytes,
            size_bytes: original.size_bytes,
            provisioning: Provisioning::Thin,
            mode: original.mode,
            access_modes: vec![],
            source: Some(source),
        };
        let record = self.node.create_volume(request).await.unwrap();
        self.existing(record.id)
    }

    pub async fn snapshot(&self, name: &str, of: &Volume<'_>) -> SnapshotId {
        let request = SnapshotRequest {
            id: SnapshotId::from_name(name),
            name: name.into(),
            source: of.id.clone(),
            compression: None,
            checksum: None,
        };
        self.node.create_snapshot(request).await.unwrap().id
    }

    pub fn existing(&self, id: VolumeId) -> Volume<'_> {
        let staging = self.kubelet().join(format!("staging-{id}"));
        fs::create_dir_all(&staging).unwrap();
        let pods = self.kubelet().join("pods");
        fs::create_dir_all(&pods).unwrap();
        let mode = self.pool().volume(&id).unwrap().mode;
        let capability = match mode {
            VolumeMode::Block => block(),
            VolumeMode::Filesystem(_) => mount(""),
        };
        Volume {
            machine: self,
            id,
            staging,
            pods,
            capability,
            read_only: false,
        }
    }

    /// Every mount below this machine's folder.
    pub fn mounts(&self) -> Vec<Mount> {
        let table = MountTable::read().unwrap();
        let below = |mount: &&Mount| mount.mount_point.starts_with(self.path());
        table.iter().filter(below).cloned().collect()
    }

    fn images(&self) -> Vec<ImageKey> {
        let mut keys = Vec::new();
        for folder in ["volumes", "trash", "tmp"] {
            let Ok(entries) = fs::read_dir(self.path().join("pool").join(folder)) else {
                continue;
            };
            for entry in entries.flatten() {
                if let Ok(image) = File::open(entry.path().join("disk.img")) {
                    keys.push(ImageKey::of(&image).unwrap());
                }
            }
        }
        keys
    }

    /// Unmounts and detaches everything.
    pub fn release(&self) {
        let mut devices: Vec<LoopDevice> = self
            .images()
            .into_iter()
            .flat_map(|key| loop_device::find(key).unwrap())
            .collect();
        let mut mounts = self.mounts();
        mounts.reverse();
        for mount in mounts {
            devices.extend(loop_device::by_device_number(mount.device).unwrap());
            let path = mount.mount_point.to_str().unwrap();
            let target = TargetBase::anywhere().open(path).unwrap().unwrap();
            let _result = unmount_top(&target);
        }
        for device in devices {
            let _result = loop_device::detach(&device);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.folder.is_none() {
            return;
        }
        self.release();
        if !self.mounts().is_empty() {
            let kept = self.folder.take().unwrap().keep();
            eprintln!("still mounted below {}", kept.display());
        }
    }
}

fn start(pool: &Path, kubelet: &Path) -> (LocalNode, NodeService) {
    let handle = PoolHandle::new(pool.to_owned(), pool::Options::default());
    let node = LocalNode::new("node-1".into(), handle);
    let targets = TargetBase::kubelet(kubelet.to_owned());
    let service = NodeService::new("vd.csi.io", node.clone(), targets);
    (node, service)
}

/// A volume as kubelet uses it.
#[derive(Clone)]
pub struct Volume<'a> {
    pub machine: &'a Machine,
    pub id: VolumeId,
    pub staging: PathBuf,
    pub pods: PathBuf,
    pub capability: v1::VolumeCapability,
    pub read_only: bool,
}

impl Volume<'_> {
    pub fn with(&self, capability: v1::VolumeCapability) -> Self {
        Self {
            capability,
            ..self.clone()
        }
    }

    pub fn reading(&self) -> Self {
        Self {
            read_only: true,
            ..self.clone()
        }
    }

    pub fn target(&self, pod: &str) -> PathBuf {
        self.pods.join(pod)
    }

    pub fn record(&self) -> VolumeRecord {
        self.machine.pool().volume(&self.id).unwrap()
    }

    pub fn image(&self) -> PathBuf {
        let volumes = self.machine.path().join("pool/volumes");
        volumes.join(self.id.as_str()).join("disk.img")
    }

    pub fn devices(&self) -> Vec<LoopDevice> {
        let image = File::open(self.image()).unwrap();
        loop_device::find(ImageKey::of(&image).unwrap()).unwrap()
    }

    pub async fn stage(&self) -> Result<(), Code> {
        let request = v1::NodeStageVolumeRequest {
            volume_id: self.id.to_string(),
            staging_target_path: text(&self.staging),
            volume_capability: Some(self.capability.clone()),
            ..Default::default()
        };
        let service = &self.machine.service;
        done(service.node_stage_volume(Request::new(request)).await)
    }

    pub async fn unstage(&self) -> Result<(), Code> {
        let request = v1::NodeUnstageVolumeRequest {
            volume_id: self.id.to_string(),
            staging_target_path: text(&self.staging),
        };
        let service = &self.machine.service;
        done(service.node_unstage_volume(Request::new(request)).await)
    }

    pub async fn publish(&self, pod: &str) -> Result<(), Code> {
        let request = v1::NodePublishVolumeRequest {
            volume_id: self.id.to_string(),
            staging_target_path: text(&self.staging),
            target_path: text(&self.target(pod)),
            volume_capability: Some(self.capability.clone()),
            readonly: self.read_only,
            ..Default::default()
        };
        let service = &self.machine.service;
        done(service.node_publish_volume(Request::new(request)).await)
    }

    pub async fn unpublish(&self, pod: &str) -> Result<(), Code> {
        let request = v1::NodeUnpublishVolumeRequest {
            volume_id: self.id.to_string(),
            target_path: text(&self.target(pod)),
        };
        let service = &self.machine.service;
        done(service.node_unpublish_volume(Request::new(request)).await)
    }

    pub async fn stats(&self, path: &Path) -> Result<Vec<v1::VolumeUsage>, Code> {
        let request = v1::NodeGetVolumeStatsRequest {
            volume_id: self.id.to_string(),
            volume_path: text(path),
            ..Default::default()
        };
        let service = &self.machine.service;
        let answer = service.node_get_volume_stats(Request::new(request)).await;
        answer
            .map(|answer| answer.into_inner().usage)
            .map_err(|status| status.code())
    }

    pub async fn grow_image(&self, bytes: u64) {
        let node = &self.machine.node;
        node.expand_volume(&self.id, bytes, bytes).await.unwrap();
    }

    pub async fn expand(&self, path: &Path, required: u64) -> Result<u64, Code> {
        let request = v1::NodeExpandVolumeRequest {
            volume_id: self.id.to_string(),
            volume_path: text(path),
            capacity_range: Some(v1::CapacityRange {
                required_bytes: i64::try_from(required).unwrap(),
                limit_bytes: 0,
            }),
            ..Default::default()
        };
        let service = &self.machine.service;
        let answer = service.node_expand_volume(Request::new(request)).await;
        answer
            .map(|answer| u64::try_from(answer.into_inner().capacity_bytes).unwrap())
            .map_err(report)
    }
}

fn done<T>(answer: Result<tonic::Response<T>, Status>) -> Result<(), Code> {
    answer.map(drop).map_err(report)
}

#[allow(clippy::needless_pass_by_value, reason = "used with map_err")]
fn report(status: Status) -> Code {
    // Shown with a test that fails.
    println!("{status:?}");
    assert!(!status.message().is_empty());
    status.code()
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

pub fn ext4() -> VolumeMode {
    filesystem(FsType::Ext4)
}

pub fn xfs() -> VolumeMode {
    filesystem(FsType::Xfs)
}

pub fn filesystem(fs: FsType) -> VolumeMode {
    VolumeMode::Filesystem(Format {
        fs,
        state: FormatState::Unformatted,
    })
}

fn capability(access_type: AccessType, mode: Mode) -> v1::VolumeCapability {
    v1::VolumeCapability {
        access_type: Some(access_type),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

pub fn block() -> v1::VolumeCapability {
    capability(
        AccessType::Block(BlockVolume {}),
        Mode::SingleNodeMultiWriter,
    )
}

pub fn mount(fs: &str) -> v1::VolumeCapability {
    let mount = MountVolume {
        fs_type: fs.into(),
        ..Default::default()
    };
    capability(AccessType::Mount(mount), Mode::SingleNodeMultiWriter)
}

pub fn with_flags(flags: &[&str]) -> v1::VolumeCapability {
    let mount = MountVolume {
        mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        ..Default::default()
    };
    capability(AccessType::Mount(mount), Mode::SingleNodeMultiWriter)
}

pub fn with_mode(capability: v1::VolumeCapability, mode: Mode) -> v1::VolumeCapability {
    v1::VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        ..capability
    }
}

pub fn write(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}
