//! A CSI driver that does as it is told, for the answers that a good one does not give. It keeps its snapshots, so what leaks is
//! seen.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use proto::csi::v1::controller_server::Controller;
use proto::csi::v1::identity_server::Identity;
use proto::csi::v1::*;
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};

use self::serving::Process;
use self::volumes::Volumes;

#[path = "asked.rs"]
mod asked;
#[path = "serving.rs"]
mod serving;
#[path = "volumes.rs"]
mod volumes;

/// Longest wait for a call. Nothing waits that long but what never comes.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// What the driver does when it is asked for a snapshot of a volume.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// Makes it, and it is ready.
    Ready,
    /// Makes it, and it is not ready.
    Pending,
    /// Refuses.
    No(Code),
    /// Makes it and then refuses.
    MadeBut(Code),
    /// Makes it, ready, and says neither how big it is nor when it was made.
    Bare,
    /// Never answers.
    Hang,
    /// Answers once the test has another answer for the volume, with that.
    Wait,
}

/// Parameters and secrets of a call.
pub type Given = (HashMap<String, String>, HashMap<String, String>);

#[derive(Default)]
struct State {
    /// What is answered for a volume: one after the other, the last for ever.
    scripts: HashMap<String, VecDeque<Answer>>,
    /// Id, source, readiness.
    snapshots: BTreeMap<String, (String, bool)>,
    /// How often DeleteSnapshot of an id is refused.
    refuse_delete: HashMap<String, u32>,
    calls: Vec<String>,
    /// The volumes of which a call waits for another answer.
    held: HashSet<String>,
    parameters: HashMap<String, HashMap<String, String>>,
    secrets: HashMap<String, HashMap<String, String>>,
    /// Parameters and secrets of the last call for a name.
    given: BTreeMap<String, Given>,
    /// ListSnapshots of these ids is refused.
    refuse_list: HashSet<String>,
    /// What is there of volumes.
    pub(crate) volumes: Volumes,
}

/// Clones are one driver.
#[derive(Clone)]
pub struct Driver {
    pub name: &'static str,
    pub socket: PathBuf,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    process: Arc<Process>,
    _folder: Arc<tempfile::TempDir>,
}

impl Driver {
    pub fn start(name: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("csi.sock");
        let driver = Self {
            name,
            socket: socket.clone(),
            state: Arc::default(),
            changed: watch::channel(0).0,
            process: Arc::default(),
            _folder: Arc::new(folder),
        };
        driver.come();
        driver
    }

    pub fn script(&self, volume: &str, answers: &[Answer]) {
        let answers = answers.iter().copied().collect();
        self.state
            .lock()
            .unwrap()
            .scripts
            .insert(volume.to_owned(), answers);
        self.ring();
    }

    pub fn refuse_delete(&self, id: &str, times: u32) {
        self.state
            .lock()
            .unwrap()
            .refuse_delete
            .insert(id.to_owned(), times);
    }

    pub fn refuse_list(&self, id: &str, refused: bool) {
        let mut state = self.state.lock().unwrap();
        if refused {
            state.refuse_list.insert(id.to_owned());
        } else {
            state.refuse_list.remove(id);
        }
    }

    /// Puts a snapshot there that nobody has asked for.
    pub fn has(&self, id: &str) {
        let mut state = self.state.lock().unwrap();
        state
            .snapshots
            .insert(id.to_owned(), ("elsewhere".to_owned(), true));
    }

    /// The ids of the snapshots of a volume.
    pub fn snapshots_of(&self, volume: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let all = state
            .snapshots
            .iter()
            .filter(|(_, (source, _))| source == volume);
        all.map(|(id, _)| id.clone()).collect()
    }

    pub fn knows(&self, id: &str) -> bool {
        self.state.lock().unwrap().snapshots.contains_key(id)
    }

    /// The calls about this volume or snapshot.
    pub fn calls(&self, about: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state
            .calls
            .iter()
            .filter(|call| call.ends_with(&format!(" {about}")))
            .cloned()
            .collect()
    }

    /// All calls so far.
    pub fn all_calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Returns once the driver was called so often about this.
    pub async fn called(&self, about: &str, times: usize) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while self.calls(about).len() < times {
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(
            waited.is_ok(),
            "the driver is never called {times} times about {about}"
        );
    }

    /// Our driver's ids are the names, whatever a cluster calls it; those of others tell nothing.
    fn ids_are_names(&self) -> bool {
        self.name.contains("vd.csi.io")
    }

    /// Makes calls about this volume wait, and returns once one does.
    pub async fn hold(&self, volume: &str) {
        let mut changed = self.changed.subscribe();
        self.script(volume, &[Answer::Wait]);
        let waiting = async {
            while !self.state.lock().unwrap().held.contains(volume) {
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "the driver is never called about {volume}");
    }

    fn ring(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn note(&self, call: String) {
        self.state.lock().unwrap().calls.push(call);
        self.ring();
    }

    async fn answer(&self, volume: &str) -> Answer {
        let mut changed = self.changed.subscribe();
        loop {
            match self.next_answer(volume) {
                Answer::Wait => {
                    if self.state.lock().unwrap().held.insert(volume.to_owned()) {
                        self.ring();
                    }
                    changed.changed().await.unwrap();
                }
                answer => {
                    self.state.lock().unwrap().held.remove(volume);
                    return answer;
                }
            }
        }
    }

    fn next_answer(&self, volume: &str) -> Answer {
        let mut state = self.state.lock().unwrap();
        let Some(script) = state.scripts.get_mut(volume) else {
            return Answer::Ready;
        };
        match script.len() {
            0 => Answer::Ready,
            1 => script[0],
            _ => script.pop_front().unwrap(),
        }
    }

    fn make(&self, id: &str, source: &str, ready: bool) -> Snapshot {
        let mut state = self.state.lock().unwrap();
        let entry = state.snapshots.entry(id.to_owned());
        let kept = entry.or_insert((source.to_owned(), ready));
        kept.1 |= ready;
        described(id, kept)
    }
}

fn described(id: &str, kept: &(String, bool)) -> Snapshot {
    Snapshot {
        size_bytes: 10 << 20,
        snapshot_id: id.to_owned(),
        source_volume_id: kept.0.clone(),
        creation_time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 5,
        }),
        ready_to_use: kept.1,
        ..Snapshot::default()
    }
}

#[tonic::async_trait]
impl Identity for Driver {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        let mut manifest = HashMap::new();
        if self.ids_are_names() {
            manifest.insert("vd.csi.io/snapshot-id".to_owned(), "name".to_owned());
        }
        Ok(Response::new(GetPluginInfoResponse {
            name: self.name.to_owned(),
            vendor_version: "test".to_owned(),
            manifest,
        }))
    }
    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(volumes::plugin()))
    }
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}

#[tonic::async_trait]
impl Controller for Driver {
    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        use controller_service_capability::rpc::Type as Rpc;
        use controller_service_capability::{Rpc as Of, Type};
        let capability = |rpc: Rpc| ControllerServiceCapability {
            r#type: Some(Type::Rpc(Of { r#type: rpc.into() })),
        };
        let capabilities = [
            Rpc::CreateDeleteSnapshot,
            Rpc::ListSnapshots,
            Rpc::CreateDeleteVolume,
        ]
        .map(capability)
        .to_vec();
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let request = request.into_inner();
        let volume = request.source_volume_id.clone();
        {
            let mut state = self.state.lock().unwrap();
            let given = (request.parameters.clone(), request.secrets.clone());
            state.given.insert(request.name.clone(), given);
            state
                .parameters
                .insert(volume.clone(), request.parameters.clone());
            state
                .secrets
                .insert(volume.clone(), request.secrets.clone());
        }
        self.note(format!("CreateSnapshot {volume}"));
        let answer = self.answer(&volume).await;
        let id = if self.ids_are_names() {
            request.name.clone()
        } else {
            format!("id-of-{volume}")
        };
        let made = |ready| {
            Ok(Response::new(CreateSnapshotResponse {
                snapshot: Some(self.make(&id, &volume, ready)),
            }))
        };
        match answer {
            Answer::Ready => made(true),
            Answer::Pending => made(false),
            Answer::No(code) => Err(Status::new(code, "as the test wants")),
            Answer::MadeBut(code) => {
                self.make(&id, &volume, true);
                Err(Status::new(code, "as the test wants"))
            }
            Answer::Bare => {
                let snapshot = Snapshot {
                    size_bytes: 0,
                    creation_time: None,
                    ..self.make(&id, &volume, true)
                };
                Ok(Response::new(CreateSnapshotResponse {
                    snapshot: Some(snapshot),
                }))
            }
            Answer::Wait | Answer::Hang => std::future::pending().await,
        }
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        let id = request.into_inner().snapshot_id;
        let refused = {
            let mut state = self.state.lock().unwrap();
            match state.refuse_delete.get_mut(&id) {
                Some(times) if *times > 0 => {
                    *times -= 1;
                    true
                }
                _ => {
                    state.snapshots.remove(&id);
                    false
                }
            }
        };
        self.note(format!("DeleteSnapshot {id}"));
        if refused {
            Err(Status::internal("as the test wants"))
        } else {
            Ok(Response::new(DeleteSnapshotResponse {}))
        }
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let id = request.into_inner().snapshot_id;
        self.note(format!("ListSnapshots {id}"));
        let state = self.state.lock().unwrap();
        if state.refuse_list.contains(&id) {
            return Err(Status::internal("as the test wants"));
        }
        let found = state.snapshots.get(&id).map(|kept| described(&id, kept));
        let entry = |snapshot| list_snapshots_response::Entry {
            snapshot: Some(snapshot),
        };
        let entries = found.map(entry).into_iter().collect();
        Ok(Response::new(ListSnapshotsResponse {
            entries,
            next_token: String::new(),
        }))
    }

    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        self.make_volume(request.into_inner()).map(Response::new)
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let id = request.into_inner().volume_id;
        self.state.lock().unwrap().volumes.made.remove(&id);
        self.note(format!("DeleteVolume {id}"));
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn controller_publish_volume(
        &self,
        _: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn controller_unpublish_volume(
        &self,
        _: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn validate_volume_capabilities(
        &self,
        _: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_volumes(
        &self,
        _: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn controller_list_volume_health(
        &self,
        _: Request<ControllerListVolumeHealthRequest>,
    ) -> Result<Response<ControllerListVolumeHealthResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn controller_get_volume_health(
        &self,
        _: Request<ControllerGetVolumeHealthRequest>,
    ) -> Result<Response<ControllerGetVolumeHealthResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_capacity(
        &self,
        _: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_snapshot(
        &self,
        _: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn controller_expand_volume(
        &self,
        _: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn controller_get_volume(
        &self,
        _: Request<ControllerGetVolumeRequest>,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn controller_modify_volume(
        &self,
        _: Request<ControllerModifyVolumeRequest>,
    ) -> Result<Response<ControllerModifyVolumeResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
