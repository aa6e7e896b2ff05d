//! `deploy/vd-csi.yaml` is what the chart says, a real API server takes all of it, and its pods can do no more than they need.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use serde_json::{Value, json};
use tests::manifests::api_server::{ApiServer, User};
use tests::manifests::documents::{self, parse, shipped, title};

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

fn pod(objects: &[Value], kind: &str) -> Value {
    of_kind(objects, kind)[0]["spec"]["template"]["spec"].clone()
}

fn containers(pod: &Value) -> &Vec<Value> {
    pod["containers"].as_array().expect("containers")
}

#[test]
fn the_manifest_is_what_the_chart_renders() {
    let shipped = documents::text(&documents::deploy("vd-csi.yaml"));
    assert!(
        documents::render() == shipped,
        "deploy/vd-csi.yaml is not what the chart says: run `make manifests`"
    );
}

#[test]
fn an_api_server_accepts_every_object_twice_and_removes_all_but_the_definitions() {
    let server = ApiServer::with_driver();
    let manifest = documents::deploy("vd-csi.yaml").display().to_string();
    let again = server
        .kubectl(&User::Admin, &["apply", "-f", &manifest])
        .ok();
    assert_eq!(again.lines().count(), shipped().len(), "{again}");
    assert!(
        !again.contains("created"),
        "each object has one name: {again}"
    );
    // Server-side apply is strict: an unknown or a duplicate field is an error.
    let strict = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--validate=strict",
        "-f",
        &manifest,
    ];
    let _output = server.kubectl(&User::Admin, &strict).ok();
    for policy in ["vd-csi-agent", "vd-csi-destroy"] {
        let path = format!("validatingadmissionpolicies/{policy}");
        let found = server
            .kubectl(&User::Admin, &["get", &path, "-o", "name"])
            .ok();
        assert!(found.contains(policy));
    }
    // As docs/install.md says; there is nobody here who would end a namespace.
    let away = ["delete", "--wait=false", "-f", &manifest];
    let spare = ["-l", "app.kubernetes.io/component!=crd"];
    let gone = server.kubectl(&User::Admin, &[&away[..], &spare].concat());
    let (gone, all) = (gone.ok().lines().count(), shipped().len());
    assert_eq!(gone, all - api_kinds().len());
    let definitions = ["get", "crd", "-o", "name"];
    let left = server.kubectl(&User::Admin, &definitions).ok();
    assert_eq!(left.lines().count(), api_kinds().len(), "{left}");
}

#[test]
fn every_part_can_be_turned_on_and_off() {
    let everything = [
        "metrics.podMonitor.enabled=true",
        "metrics.rules.enabled=true",
        "metrics.dashboard.enabled=true",
        "imagePullSecrets[0].name=registry",
        "storageClasses.late.isDefault=true",
        "storageClasses.immediate.parameters.provisioning=thick",
        "node.podAnnotations.a=b",
        "controller.podAnnotations.a=b",
        "controller.replicas=1",
    ];
    let objects = parse(&documents::render_with(&everything).ok());
    for kind in ["PodMonitor", "PrometheusRule", "ConfigMap"] {
        assert_eq!(of_kind(&objects, kind).len(), 1, "{kind}");
    }
    assert!(of_kind(&objects, "Namespace").is_empty(), "helm makes it");
    let least = [
        "crds.install=false",
        "admissionPolicies=false",
        "storageClasses.late.create=false",
        "storageClasses.immediate.create=false",
    ];
    let objects = parse(&documents::render_with(&least).ok());
    for kind in [
        "CustomResourceDefinition",
        "ValidatingAdmissionPolicy",
        "StorageClass",
    ] {
        assert!(of_kind(&objects, kind).is_empty(), "{kind}");
    }
}

#[test]
fn a_value_reaches_every_place_that_must_agree() {
    let values = [
        "kubeletDir=/data/kubelet",
        "driverName=disks.example.org",
        "pool.directory=/srv/vd",
        "pool.overcommit=1.5",
        "pool.reserve=20GiB",
        "pool.init=never",
    ];
    let objects = parse(&documents::render_with(&values).ok());
    let text = pod(&objects, "DaemonSet").to_string();
    for wanted in [
        "--listen=unix:///data/kubelet/plugins/disks.example.org/csi.sock",
        "--kubelet-dir=/data/kubelet",
        "\"path\":\"/data/kubelet/plugins_registry\"",
        "\"mountPath\":\"/srv/vd\"",
        "\"path\":\"/srv/vd\"",
        "--overcommit=1.5",
        "--reserve=20GiB",
        "--pool-init=never",
        "--driver-name=disks.example.org",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in {text}");
    }
    assert!(
        !text.contains("/var/lib/kubelet") && !text.contains("/var/vd"),
        "{text}"
    );
    for class in of_kind(&objects, "StorageClass") {
        assert_eq!(class["provisioner"], "disks.example.org");
    }
    assert_eq!(
        of_kind(&objects, "CSIDriver")[0]["metadata"]["name"],
        "disks.example.org"
    );
    let account = "system:serviceaccount:storage:csi-node";
    let policies = serde_json::to_string(&of_kind(&objects, "ValidatingAdmissionPolicy")).unwrap();
    assert!(policies.contains(account), "{policies}");
}

#[test]
fn classes_images_and_tolerations_are_those_of_the_values() {
    let values = [
        "storageClasses.late.name=late",
        "storageClasses.immediate.name=soon",
        "snapshotClass.name=cuts",
        "image.repository=registry.example.org/vd-csi",
        "image.tag=v7",
        "node.tolerations[0].key=disks",
        "node.tolerations[0].operator=Exists",
        "controller.tolerations[0].key=masters",
        "controller.tolerations[0].operator=Exists",
        "sidecars.resizer.image=registry.example.org/csi-resizer:v7",
    ];
    let objects = parse(&documents::render_with(&values).ok());
    let classes = of_kind(&objects, "StorageClass");
    let mut names: Vec<_> = classes
        .iter()
        .map(|class| class["metadata"]["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["late", "soon"]);
    for (kind, key) in [("DaemonSet", "disks"), ("Deployment", "masters")] {
        let pod = pod(&objects, kind);
        let tolerations = json!([{"key": key, "operator": "Exists"}]);
        assert_eq!(pod["tolerations"], tolerations, "{kind}");
        let own = &containers(&pod)[0]["image"];
        assert_eq!(own, "registry.example.org/vd-csi:v7", "{kind}");
    }
    let text = pod(&objects, "Deployment").to_string();
    for wanted in [
        "--snapshot-class=cuts",
        "registry.example.org/csi-resizer:v7",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in {text}");
    }
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for value in [
        // What the programs, kubelet or the API server would refuse later, pod by pod.
        "driverName=1vd.csi.io",
        "driverName=vd.csi.io2",
        "driverName=vd..csi.io",
        "driverName=vd.-csi.io",
        "driverName=Vd.csi.io",
        "pool.overcommit=0.5.5",
        "pool.reserve=99999999TiB",
        "pool.reserve=90.5%",
        "pool.directory=/usr",
        "pool.directory=/dev/vd",
        "storageClasses.late.name=v..d",
        "storageClasses.immediate.name=-vd",
        r"storageClasses.late.annotations.storageclass\.kubernetes\.io/is-default-class=yes",
        "snapshotClass.name=v.-d",
        "scrub.period=0d",
        "scrub.rate=32MB",
        "node.maxUnavailable=0",
        "node.maxUnavailable=0%",
        r"node.nodeSelector.kubernetes\.io/os=windows",
        "node.nodeSelector.disk=very fast",
        "node.priorityClassName=High",
        "image.tag=a b",
        "image.repository=vd csi",
        "imagePullSecrets[0].secret=registry",
        "sidecars.kubeApiBurst=1000000",
        "metrics.podMonitor.interval=0s",
        r"metrics.rules.labels.app\.kubernetes\.io/name=mine",
        "pool.overcommit=0",
        "pool.overcommit=much",
        "pool.reserve=-1",
        "pool.reserve=20Gi",
        "pool.reserve=95%",
        "pool.directory=var/vd",
        "pool.directory=/var/../etc",
        "pool.init=always",
        "pool.overcomit=2",
        "driverName=vd/csi",
        "storageClasses.late.reclaimPolicy=Keep",
        "storageClasses.late.parameters.provisioning=fat",
        "storageClasses.late.parameters.color=red",
        "snapshotController.mode=both",
        "controller.replicas=0",
        "image.pullPolicy=Sometimes",
    ] {
        let ran = documents::render_with(&[value]);
        assert_ne!(ran.code, Some(0), "{value} was taken");
        assert!(
            ran.err.contains("values don't meet the specifications"),
            "{value}: {ran}"
        );
    }
}

#[test]
fn values_at_the_edge_of_what_makes_sense_are_taken() {
    let longest = format!("driverName={}", "a".repeat(63));
    for values in [
        &[longest.as_str(), "kubeletDir=/kubelet"][..],
        &["driverName=a", "pool.directory=/srv/.vd/1"],
        &["pool.overcommit=0.1", "pool.reserve=0%"],
        &["pool.overcommit=100", "pool.reserve=90%"],
        &["pool.overcommit=99.99", "pool.reserve=9999999TiB"],
        &["scrub.period=never", "scrub.rate=1KiB"],
        &["node.maxUnavailable=100%", "node.priorityClassName="],
        &["node.nodeSelector.disk=fast", "controller.replicas=5"],
        &["image.repository=r.example:5000/a/vd-csi", "image.tag=v1_2"],
        &["snapshotClass.name=", "storageClasses.late.name=vd.fast"],
        &[r"storageClasses.late.annotations.cdi\.kubevirt\.io/clone-strategy=copy"],
        &["sidecars.kubeApiBurst=100000", "sidecars.resizer.image=x"],
    ] {
        let ran = documents::render_with(values);
        assert_eq!(ran.code, Some(0), "{values:?}: {ran}");
        // Each key once: the API server takes no other YAML.
        let _objects = parse(&ran.out);
        assert!(
            !ran.out.contains("e+"),
            "{values:?}: a number with an exponent"
        );
    }
    for reserve in ["0%", "90%", "89.99%", "9999999TiB", "999999999999999999"] {
        let _reserve: pool::capacity::Reserve = reserve.parse().expect(reserve);
    }
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    let folder = "kubeletDir=/var/snap/microk8s/common/var/lib/kubelet";
    let long = "driverName=disks.storage.example.organisation";
    for (values, why) in [
        (&[folder, long][..], "paths of sockets"),
        (&["storageClasses.late.name=vd-immediate"], "have one name"),
        (&["pool.directory=/var/lib/kubelet/vd"], "is in kubeletDir"),
    ] {
        let ran = documents::render_with(values);
        assert_ne!(ran.code, Some(0), "{values:?} were taken");
        assert!(ran.err.contains(why), "{values:?}: {ran}");
    }
}

#[test]
fn the_controllers_pod_is_confined_and_has_no_way_to_the_host() {
    let objects = shipped();
    let pod = pod(&objects, "Deployment");
    let security = &pod["securityContext"];
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(security["runAsNonRoot"], true);
    for container in containers(&pod) {
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true, "{container}");
        assert_eq!(security["allowPrivilegeEscalation"], false, "{container}");
        assert_eq!(security["capabilities"]["drop"][0], "ALL", "{container}");
        assert!(security["capabilities"]["add"].is_null() && security["privileged"].is_null());
    }
    for volume in pod["volumes"].as_array().unwrap() {
        assert!(volume["emptyDir"].is_object(), "{volume}");
    }
}

#[test]
fn a_drain_takes_one_copy_of_the_controller_at_a_time_and_is_never_held_up() {
    let objects = shipped();
    let budget = &of_kind(&objects, "PodDisruptionBudget")[0]["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    assert!(budget["minAvailable"].is_null());
    let template = &of_kind(&objects, "Deployment")[0]["spec"]["template"];
    let labels = template["metadata"]["labels"].as_object().unwrap();
    let chosen = budget["selector"]["matchLabels"].as_object().unwrap();
    assert!(!chosen.is_empty());
    for (key, value) in chosen {
        assert_eq!(labels.get(key), Some(value), "{key}");
    }
}

#[test]
fn an_agent_is_one_privileged_container_without_the_hosts_network() {
    let objects = shipped();
    let pod = pod(&objects, "DaemonSet");
    assert_eq!(containers(&pod).len(), 1);
    let container = &containers(&pod)[0];
    assert_eq!(container["securityContext"]["privileged"], true);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    let mount = |name: &str| {
        let mounts = container["volumeMounts"].as_array().unwrap();
        mounts
            .iter()
            .find(|mount| mount["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(mount("pods")["mountPropagation"], "Bidirectional");
    assert_eq!(mount("plugins")["mountPropagation"], "Bidirectional");
    assert_eq!(mount("pool")["mountPropagation"], "HostToContainer");
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    let probes = ["startupProbe", "livenessProbe", "readinessProbe"];
    assert!(
        probes
            .iter()
            .all(|probe| container[probe]["httpGet"]["port"] == "metrics")
    );
}

#[test]
fn every_pod_says_what_it_needs_and_takes_nothing_of_the_hosts() {
    let objects = shipped();
    for kind in ["Deployment", "DaemonSet"] {
        let pod = pod(&objects, kind);
        for host in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
            assert!(pod[host].is_null(), "{kind}: {host}");
        }
        assert!(pod["priorityClassName"].is_string());
        for container in containers(&pod) {
            let requests = &container["resources"]["requests"];
            assert!(
                requests["memory"].is_string() && requests["cpu"].is_string(),
                "{container}"
            );
            assert!(container["livenessProbe"].is_object(), "{container}");
            let image = container["image"].as_str().unwrap();
            let (_name, tag) = image.rsplit_once(':').expect("a tag");
            assert_ne!(tag, "latest", "{image}");
        }
    }
    for account in of_kind(&objects, "ServiceAccount") {
        // Only a pod that asks for a token gets one.
        assert_eq!(
            account["automountServiceAccountToken"],
            false,
            "{}",
            title(account)
        );
    }
}

#[test]
fn the_driver_and_its_classes_are_what_cdi_and_kubevirt_look_for() {
    let objects = shipped();
    let driver = &of_kind(&objects, "CSIDriver")[0]["spec"];
    assert_eq!(driver["attachRequired"], false);
    assert_eq!(driver["storageCapacity"], true);
    assert_eq!(driver["fsGroupPolicy"], "File");
    let classes = of_kind(&objects, "StorageClass");
    let class = |name: &str| {
        *classes
            .iter()
            .find(|class| class["metadata"]["name"] == name)
            .unwrap()
    };
    assert_eq!(class("vd")["volumeBindingMode"], "WaitForFirstConsumer");
    assert_eq!(class("vd-immediate")["volumeBindingMode"], "Immediate");
    let annotations = &class("vd")["metadata"]["annotations"];
    assert_eq!(
        annotations["storageclass.kubevirt.io/is-default-virt-class"],
        "true"
    );
    for class in classes {
        assert_eq!(class["allowVolumeExpansion"], true);
        let annotations = &class["metadata"]["annotations"];
        assert_eq!(annotations["cdi.kubevirt.io/clone-strategy"], "csi-clone");
        assert!(annotations["storageclass.kubernetes.io/is-default-class"].is_null());
    }
}

#[test]
fn removing_the_chart_keeps_the_definitions_and_with_them_every_object() {
    let objects = shipped();
    let definitions = of_kind(&objects, "CustomResourceDefinition");
    assert_eq!(definitions.len(), api_kinds().len());
    for definition in definitions {
        let metadata = &definition["metadata"];
        assert_eq!(metadata["annotations"]["helm.sh/resource-policy"], "keep");
        // `kubectl delete -f deploy/vd-csi.yaml -l 'app.kubernetes.io/component!=crd'` spares them too.
        assert_eq!(metadata["labels"]["app.kubernetes.io/component"], "crd");
    }
}

fn api_kinds() -> [&'static str; 3] {
    ["LocalPool", "LocalSnapshot", "LocalVolume"]
}
