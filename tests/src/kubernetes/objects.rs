//! The objects that a person would write.

use serde_json::{Value, json};

use crate::cluster::TEST_IMAGE;

/// A claim: 64 MiB with a filesystem of class `vd`, unless told otherwise.
#[derive(Clone, Debug)]
#[must_use]
pub struct Claim(Value);

impl Claim {
    /// The usual claim.
    pub fn new(name: &str) -> Self {
        Self(json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "annotations": {}},
            "spec": {
                "storageClassName": "vd",
                "volumeMode": "Filesystem",
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "64Mi"}},
            },
        }))
    }

    fn with(mut self, field: &str, value: Value) -> Self {
        self.0["spec"][field] = value;
        self
    }

    /// Of another class.
    pub fn class(self, class: &str) -> Self {
        self.with("storageClassName", json!(class))
    }

    /// For a raw device.
    pub fn block(self) -> Self {
        self.with("volumeMode", json!("Block"))
    }

    /// Of this size, as Kubernetes writes it: `1Gi`, `11381663335`.
    pub fn size(mut self, size: &str) -> Self {
        self.0["spec"]["resources"]["requests"]["storage"] = json!(size);
        self
    }

    /// With the content of a snapshot.
    pub fn from_snapshot(self, name: &str) -> Self {
        let source =
            json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name});
        self.with("dataSource", source)
    }

    /// With the content of another claim.
    pub fn from_claim(self, name: &str) -> Self {
        self.with(
            "dataSource",
            json!({"kind": "PersistentVolumeClaim", "name": name}),
        )
    }

    /// For one volume only.
    pub fn volume(self, name: &str) -> Self {
        self.with("volumeName", json!(name))
    }

    /// With another access mode.
    pub fn access(self, mode: &str) -> Self {
        self.with("accessModes", json!([mode]))
    }

    /// With an annotation.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["annotations"][key] = json!(value);
        self
    }

    /// As its object.
    #[must_use]
    pub fn object(self) -> Value {
        self.0
    }

    /// Its spec, for templates.
    #[must_use]
    pub fn spec(self) -> Value {
        self.0["spec"].clone()
    }
}

/// A pod that sleeps, and is killed a second after it was told to end: with no second at all its object would go before
/// its node has let go of the volumes.
#[derive(Clone, Debug)]
#[must_use]
pub struct Pod(Value);

impl Pod {
    /// Without volumes.
    pub fn new(name: &str) -> Self {
        Self(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "main",
                    "image": TEST_IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "1000000"],
                    "volumeMounts": [],
                    "volumeDevices": [],
                }],
                "volumes": [],
            },
        }))
    }

    fn push(&mut self, list: &str, value: Value) {
        let entries = match list {
            "volumes" => &mut self.0["spec"]["volumes"],
            inner => &mut self.0["spec"]["containers"][0][inner],
        };
        entries.as_array_mut().expect("it is a list").push(value);
    }

    /// Mounts the filesystem of a claim at `/NAME of the claim`.
    pub fn mount(self, claim: &str) -> Self {
        self.mount_with(claim, &json!({}))
    }

    /// The same with more fields for the mount: `readOnly`, `subPath`.
    pub fn mount_with(mut self, claim: &str, more: &Value) -> Self {
        self.push("volumes", of_claim(claim));
        let mut mount = json!({"name": claim, "mountPath": format!("/{claim}")});
        for (key, value) in more.as_object().into_iter().flatten() {
            mount[key] = value.clone();
        }
        self.push("volumeMounts", mount);
        self
    }

    /// A volume that is not yet a claim, at `/name`.
    pub fn volume(mut self, name: &str, source: &Value) -> Self {
        let mut volume = source.clone();
        volume["name"] = json!(name);
        self.push("volumes", volume);
        self.push(
            "volumeMounts",
            json!({"name": name, "mountPath": format!("/{name}")}),
        );
        self
    }

    /// Has the device of a claim as `/dev/NAME of the claim`.
    pub fn device(mut self, claim: &str) -> Self {
        self.push("volumes", of_claim(claim));
        let device = json!({"name": claim, "devicePath": format!("/dev/{claim}")});
        self.push("volumeDevices", device);
        self
    }

    /// The scheduler may choose this node only.
    pub fn on(mut self, node: &str) -> Self {
        self.0["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        self
    }

    /// As CDI and KubeVirt do it: user, group and group of the files 107, without any privilege.
    pub fn as_qemu(mut self) -> Self {
        self.0["spec"]["securityContext"] = json!({
            "runAsUser": 107, "runAsGroup": 107, "fsGroup": 107, "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        self.0["spec"]["containers"][0]["securityContext"] = json!({
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        });
        self
    }

    /// Past the scheduler, as CDI does it for its own pods.
    pub fn nailed_to(mut self, node: &str) -> Self {
        self.0["spec"]["nodeName"] = json!(node);
        self
    }

    /// Runs a shell line instead, and ends with it.
    pub fn runs(mut self, line: &str) -> Self {
        self.0["spec"]["restartPolicy"] = json!("Never");
        self.0["spec"]["containers"][0]["command"] = json!(["sh", "-ec", line]);
        self
    }

    /// Is started again when it has ended, or could not be started: a pod that is not stays failed when the kubelet is killed
    /// while it starts.
    pub fn restarts(mut self) -> Self {
        self.0["spec"]["restartPolicy"] = json!("Always");
        self
    }

    /// As its object.
    #[must_use]
    pub fn object(self) -> Value {
        self.0
    }

    /// Its spec, for templates.
    #[must_use]
    pub fn spec(self) -> Value {
        self.0["spec"].clone()
    }
}

fn of_claim(claim: &str) -> Value {
    json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
}

/// A snapshot of a claim.
#[must_use]
pub fn snapshot(name: &str, claim: &str) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name},
        "spec": {
            "volumeSnapshotClassName": "vd",
            "source": {"persistentVolumeClaimName": claim},
        },
    })
}

/// A storage class of the driver, late bound and `Delete`, with parameters.
#[must_use]
pub fn storage_class(name: &str, parameters: &Value) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "vd.csi.io",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
        "reclaimPolicy": "Delete",
        "parameters": parameters,
    })
}
