//! The paths and calls of kubelet for one volume on one node.
//!
//! Layout as kubelet has it: the staging path is one per volume, the target path one per pod. kubelet makes the staging
//! folder and the target's parent; the driver makes the target.

use std::path::{Path, PathBuf};

use tonic::{Code, Status};

use crate::client::{Client, accepted};
use crate::{content, csi, requests, tools};

const DATA_BYTES: usize = 65_536;

/// A volume as one pod uses it.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The volume.
    pub volume_id: String,
    /// How it is used.
    pub capability: csi::VolumeCapability,
    /// Where it is staged.
    pub staging: PathBuf,
    /// Where the pod sees it.
    pub target: PathBuf,
    /// The pod may only read.
    pub read_only: bool,
}

impl Attachment {
    /// The paths below `kubelet` for the volume and a pod, made as kubelet makes them.
    #[must_use]
    pub fn new(
        kubelet: &Path,
        volume_id: &str,
        pod: &str,
        capability: csi::VolumeCapability,
    ) -> Self {
        let plugins = kubelet.join("plugins/kubernetes.io/csi");
        let (staging, target) = if requests::is_block(&capability) {
            let devices = plugins.join("volumeDevices");
            // A pod that runs has a folder also without a filesystem in it.
            let folder = kubelet.join("pods").join(pod);
            std::fs::create_dir_all(&folder).expect("make the folder of a pod");
            (
                devices.join("staging").join(volume_id),
                devices.join("publish").join(volume_id).join(pod),
            )
        } else {
            let handle = &blake3::hash(volume_id.as_bytes()).to_hex()[..32];
            let pods = kubelet.join("pods").join(pod);
            (
                plugins.join("vd.csi.io").join(handle).join("globalmount"),
                pods.join("volumes/kubernetes.io~csi")
                    .join(volume_id)
                    .join("mount"),
            )
        };
        let made = Self {
            volume_id: volume_id.to_owned(),
            capability,
            staging,
            target,
            read_only: false,
        };
        made.make_parents();
        made
    }

    /// The same volume in another pod.
    #[must_use]
    pub fn in_pod(&self, kubelet: &Path, pod: &str) -> Self {
        Self {
            read_only: self.read_only,
            ..Self::new(kubelet, &self.volume_id, pod, self.capability.clone())
        }
    }

    /// The same for a pod that may only read.
    #[must_use]
    pub fn reading(mut self) -> Self {
        self.read_only = true;
        self
    }

    fn make_parents(&self) {
        std::fs::create_dir_all(&self.staging).expect("make the staging folder");
        let parent = self.target.parent().expect("a target has a parent");
        std::fs::create_dir_all(parent).expect("make the target's parent");
    }

    /// The `NodeStageVolume` request.
    #[must_use]
    pub fn stage_request(&self) -> csi::NodeStageVolumeRequest {
        csi::NodeStageVolumeRequest {
            volume_id: self.volume_id.clone(),
            staging_target_path: text(&self.staging),
            volume_capability: Some(self.capability.clone()),
            ..Default::default()
        }
    }

    /// The `NodePublishVolume` request.
    #[must_use]
    pub fn publish_request(&self) -> csi::NodePublishVolumeRequest {
        csi::NodePublishVolumeRequest {
            volume_id: self.volume_id.clone(),
            staging_target_path: text(&self.staging),
            target_path: text(&self.target),
            volume_capability: Some(self.capability.clone()),
            readonly: self.read_only,
            ..Default::default()
        }
    }

    /// Stages the volume.
    ///
    /// # Errors
    /// The server's status.
    pub fn stage(&self, client: &Client) -> Result<(), Status> {
        client
            .node_stage_volume(self.stage_request())
            .map(|_empty| ())
    }

    /// Publishes the volume.
    ///
    /// # Errors
    /// The server's status.
    pub fn publish(&self, client: &Client) -> Result<(), Status> {
        client
            .node_publish_volume(self.publish_request())
            .map(|_empty| ())
    }

    /// Unpublishes the volume.
    ///
    /// # Errors
    /// The server's status.
    pub fn unpublish(&self, client: &Client) -> Result<(), Status> {
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: self.volume_id.clone(),
            target_path: text(&self.target),
        };
        tools::settle();
        client.node_unpublish_volume(request).map(|_empty| ())
    }

    /// Unstages the volume.
    ///
    /// # Errors
    /// The server's status.
    pub fn unstage(&self, client: &Client) -> Result<(), Status> {
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: self.volume_id.clone(),
            staging_target_path: text(&self.staging),
        };
        tools::settle();
        client.node_unstage_volume(request).map(|_empty| ())
    }

    /// Lets the filesystem grow into the device, as kubelet does after the controller has grown the volume.
    ///
    /// # Errors
    /// The server's status.
    pub fn expand(&self, client: &Client, bytes: u64) -> Result<i64, Status> {
        let request = csi::NodeExpandVolumeRequest {
            volume_id: self.volume_id.clone(),
            volume_path: text(&self.target),
            staging_target_path: text(&self.staging),
            capacity_range: requests::at_least(bytes),
            volume_capability: Some(self.capability.clone()),
            ..Default::default()
        };
        client
            .node_expand_volume(request)
            .map(|answer| answer.capacity_bytes)
    }

    /// What kubelet asks every minute.
    ///
    /// # Errors
    /// The server's status.
    pub fn stats(&self, client: &Client) -> Result<Vec<csi::VolumeUsage>, Status> {
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: self.volume_id.clone(),
            volume_path: text(&self.target),
            staging_target_path: text(&self.staging),
        };
        client
            .node_get_volume_stats(request)
            .map(|answer| answer.usage)
    }

    /// Stages and publishes; must succeed.
    #[track_caller]
    pub fn up(&self, client: &Client) {
        accepted(self.stage(client));
        accepted(self.publish(client));
    }

    /// Unpublishes and unstages; must succeed.
    #[track_caller]
    pub fn down(&self, client: &Client) {
        accepted(self.unpublish(client));
        accepted(self.unstage(client));
        assert!(!self.target.exists(), "unpublish removes the target");
    }

    /// Unpublishes, unstages and deletes; must succeed.
    #[track_caller]
    pub fn down_and_delete(&self, client: &Client) {
        self.down(client);
        accepted(client.delete(&self.volume_id));
    }

    /// Where data goes in a published volume: the device itself, or a file in the filesystem.
    #[must_use]
    pub fn data_place(&self) -> PathBuf {
        if requests::is_block(&self.capability) {
            self.target.clone()
        } else {
            self.target.join("data")
        }
    }

    /// Writes bytes of this volume's own into the published volume, and syncs them.
    #[track_caller]
    pub fn write_data(&self) -> Vec<u8> {
        let place = self.data_place();
        if !requests::is_block(&self.capability) && !place.exists() {
            let _new = std::fs::File::create(&place).expect("create the data file");
        }
        let bytes = content::pattern(&self.volume_id, DATA_BYTES);
        content::write_at(&place, 0, &bytes);
        bytes
    }

    /// The published volume must hold `bytes`.
    #[track_caller]
    pub fn assert_data(&self, bytes: &[u8]) {
        let found = content::read_at(&self.data_place(), 0, bytes.len());
        assert!(found == bytes, "other data in {}", self.target.display());
    }

    /// Removes the volume as a test that is over does, whatever state it is in; what does not exist is fine.
    #[track_caller]
    pub fn clear(&self, client: &Client) {
        for result in [
            self.unpublish(client),
            self.unstage(client),
            client.delete(&self.volume_id),
        ] {
            match result {
                Err(status) if status.code() != Code::NotFound => {
                    panic!(
                        "clear {}: {}",
                        self.volume_id,
                        crate::client::shown(&status)
                    )
                }
                _gone => {}
            }
        }
    }
}

/// A path as the protocol carries it.
#[must_use]
pub fn text(path: &Path) -> String {
    path.to_str()
        .expect("a path of a test is plain text")
        .to_owned()
}
