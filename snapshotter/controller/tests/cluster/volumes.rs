//! Volumes that csi-provisioner asks the driver for.

use std::collections::BTreeMap;

use proto::csi::v1::*;
use tonic::{Code, Status};

use super::Driver;

/// What is there of volumes, and what is answered.
#[derive(Default)]
pub(crate) struct Volumes {
    /// Id and the snapshot it was made from.
    pub(super) made: BTreeMap<String, String>,
    /// CreateVolume from this snapshot is not over: the driver is at work on it, and says so.
    at_work: Option<String>,
}

/// That it has a Controller service.
pub(super) fn plugin() -> GetPluginCapabilitiesResponse {
    use plugin_capability::service::Type as Kind;
    use plugin_capability::{Service, Type};
    let service = Service {
        r#type: Kind::ControllerService.into(),
    };
    GetPluginCapabilitiesResponse {
        capabilities: vec![PluginCapability {
            r#type: Some(Type::Service(service)),
        }],
    }
}

impl Driver {
    /// Whether volumes from this snapshot take longer than anybody waits.
    pub fn slow_restore(&self, snapshot: &str, slow: bool) {
        let mut state = self.state.lock().unwrap();
        state.volumes.at_work = slow.then(|| snapshot.to_owned());
    }

    /// The ids of the volumes made from this snapshot.
    pub fn volumes_from(&self, snapshot: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let all = state.volumes.made.iter();
        all.filter(|(_, source)| *source == snapshot)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// A slow volume is there from the first call on, as one that is copied: only the answer comes late.
    pub(super) fn make_volume(
        &self,
        request: CreateVolumeRequest,
    ) -> Result<CreateVolumeResponse, Status> {
        use volume_content_source::Type;
        let source = request.volume_content_source.clone();
        let snapshot = match source.as_ref().and_then(|source| source.r#type.as_ref()) {
            Some(Type::Snapshot(snapshot)) => snapshot.snapshot_id.clone(),
            _ => String::new(),
        };
        let slow = {
            let mut state = self.state.lock().unwrap();
            let volumes = &mut state.volumes;
            volumes.made.insert(request.name.clone(), snapshot.clone());
            volumes.at_work.as_ref() == Some(&snapshot)
        };
        self.note(format!("CreateVolume {snapshot}"));
        if slow {
            return Err(Status::new(Code::DeadlineExceeded, "as the test wants"));
        }
        Ok(CreateVolumeResponse {
            volume: Some(Volume {
                capacity_bytes: 10 << 20,
                volume_id: request.name,
                content_source: source,
                ..Volume::default()
            }),
        })
    }
}
