//! The driver under demonstration: `vdctl serve` on a socket, and the CSI calls that an orchestrator
//! makes. Everything that is created through it is remembered and can be undone.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::tests::csi;
use ::tests::csi::controller_client::ControllerClient;
use ::tests::csi::identity_client::IdentityClient;
use ::tests::csi::node_client::NodeClient;
use ::tests::kubelet::{Attachment, text};
use ::tests::requests;
use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tonic::transport::{Channel, Endpoint};

use crate::command::{self, Owned};
use crate::workplace::Workplace;

/// A call that takes longer has failed.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// The driver answers within this time after its start, and ends within it.
const START_LIMIT: Duration = Duration::from_secs(15);
/// How often a condition that has no event is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// See the module.
pub(crate) struct Driver {
    child: Owned,
    kubelet: PathBuf,
    socket: PathBuf,
    controller: ControllerClient<Channel>,
    node: NodeClient<Channel>,
    made: Mutex<Made>,
}

/// What was asked for, oldest first: also of what the demo was stopped at before an answer came.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) volumes: Vec<Attachment>,
    pub(crate) snapshots: Vec<String>,
}

impl Driver {
    /// Initialises the pool if it is new, starts the server and waits until it says that it is ready.
    pub(crate) async fn start(place: &Workplace) -> Result<Self> {
        let vdctl = vdctl();
        let pool = place.pool().to_string_lossy().into_owned();
        if place.is_new_pool() {
            let arguments = ["pool", "init", &pool, "--node", "demo"];
            let _told = command::run(&vdctl, &arguments)
                .await
                .context("vdctl pool init")?;
        }
        let listen = format!("unix://{}", place.socket().display());
        let mut command = command::prepare(&vdctl);
        let _ = command
            .args(["serve", "--pool", &pool, "--listen", &listen])
            .stdout(Stdio::null())
            .stderr(File::create(place.driver_log())?);
        let mut child = Owned::spawn(command)?;
        let channel = Endpoint::from_shared(listen)?
            .timeout(CALL_LIMIT)
            .connect_lazy();
        let started = tokio::time::timeout(START_LIMIT, ready(&mut child, channel.clone())).await;
        started
            .map_err(|_elapsed| anyhow!("not ready within {} s", START_LIMIT.as_secs()))
            .and_then(|ready| ready)
            .with_context(|| format!("vdctl serve; its last words: {}", last_words(place)))?;
        Ok(Self {
            child,
            kubelet: place.kubelet(),
            socket: place.socket(),
            controller: ControllerClient::new(channel.clone()),
            node: NodeClient::new(channel),
            made: Mutex::default(),
        })
    }

    /// CreateVolume, empty or from a snapshot. Nothing is staged yet.
    pub(crate) async fn create(
        &self,
        bytes: u64,
        used_as: csi::VolumeCapability,
        from: Option<&str>,
    ) -> Result<Attachment> {
        let id = format!("pvc-{}", uuid::Uuid::new_v4());
        let volume = Attachment::new(&self.kubelet, &id, "demo", used_as.clone());
        self.remember(|made| made.volumes.push(volume.clone()));
        let mut request = requests::volume(&id, bytes, used_as);
        if let Some(snapshot) = from {
            request = requests::from_snapshot(request, snapshot);
        }
        let answer = self.controller().create_volume(request).await;
        let made = answer.map_err(failed("CreateVolume"))?.into_inner().volume;
        let made = made.context("CreateVolume: the answer has no volume")?;
        if made.volume_id != id {
            bail!("CreateVolume: asked for {id}, got {}", made.volume_id);
        }
        Ok(volume)
    }

    /// NodeStageVolume and NodePublishVolume, as kubelet calls them. Returns the published path.
    pub(crate) async fn publish(&self, volume: &Attachment) -> Result<PathBuf> {
        let mut node = self.node();
        let staged = node.node_stage_volume(volume.stage_request()).await;
        let _empty = staged.map_err(failed("NodeStageVolume"))?;
        let published = node.node_publish_volume(volume.publish_request()).await;
        let _empty = published.map_err(failed("NodePublishVolume"))?;
        Ok(volume.target.clone())
    }

    /// CreateSnapshot. Returns the snapshot's id.
    pub(crate) async fn snapshot(&self, volume: &Attachment) -> Result<String> {
        let id = format!("snapshot-{}", uuid::Uuid::new_v4());
        self.remember(|made| made.snapshots.push(id.clone()));
        let request = requests::snapshot(&id, &volume.volume_id);
        let answer = self.controller().create_snapshot(request).await;
        let snapshot = answer
            .map_err(failed("CreateSnapshot"))?
            .into_inner()
            .snapshot;
        let snapshot = snapshot.context("CreateSnapshot: the answer has no snapshot")?;
        if snapshot.snapshot_id != id || !snapshot.ready_to_use {
            bail!("CreateSnapshot: asked for {id}, ready to use, got {snapshot:?}");
        }
        Ok(id)
    }

    /// ControllerExpandVolume and NodeExpandVolume of a published volume.
    pub(crate) async fn expand(&self, volume: &Attachment, bytes: u64) -> Result<()> {
        let request = requests::expand(&volume.volume_id, bytes, volume.capability.clone());
        let grown = self
            .controller
            .clone()
            .controller_expand_volume(request)
            .await;
        let _size = grown.map_err(failed("ControllerExpandVolume"))?;
        let request = csi::NodeExpandVolumeRequest {
            volume_id: volume.volume_id.clone(),
            volume_path: text(&volume.target),
            staging_target_path: text(&volume.staging),
            capacity_range: requests::at_least(bytes),
            volume_capability: Some(volume.capability.clone()),
            ..Default::default()
        };
        let grown = self.node().node_expand_volume(request).await;
        let _size = grown.map_err(failed("NodeExpandVolume"))?;
        Ok(())
    }

    /// Ends the server as an init system does, and sees that nothing of it stays.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().context("vdctl serve has ended by itself")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        let ended = tokio::time::timeout(START_LIMIT, self.child.wait()).await;
        let status = ended.context("vdctl serve does not end after SIGTERM")??;
        if !status.success() {
            bail!("vdctl serve ended with {status}");
        }
        if self.socket.exists() {
            bail!("vdctl serve left its socket behind");
        }
        Ok(())
    }

    /// Forgets what was asked for, and returns it.
    pub(crate) fn made(&self) -> Made {
        self.remember(std::mem::take)
    }

    /// A client of the Controller service.
    pub(crate) fn controller(&self) -> ControllerClient<Channel> {
        self.controller.clone()
    }

    /// A client of the Node service.
    pub(crate) fn node(&self) -> NodeClient<Channel> {
        self.node.clone()
    }

    fn remember<T>(&self, change: impl FnOnce(&mut Made) -> T) -> T {
        change(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The program under demonstration.
pub(crate) fn vdctl() -> String {
    tests::binaries::shipped().to_string_lossy().into_owned()
}

/// An error that names the call.
pub(crate) fn failed(rpc: &'static str) -> impl Fn(tonic::Status) -> anyhow::Error {
    move |status| anyhow!("{rpc}: {} ({:?})", status.message(), status.code())
}

async fn ready(child: &mut Child, channel: Channel) -> Result<()> {
    let mut identity = IdentityClient::new(channel);
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("ended with {status}");
        }
        let probe = identity.probe(csi::ProbeRequest {}).await;
        if probe.is_ok_and(|answer| answer.into_inner().ready != Some(false)) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn last_words(place: &Workplace) -> String {
    let log = std::fs::read_to_string(place.driver_log()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}
