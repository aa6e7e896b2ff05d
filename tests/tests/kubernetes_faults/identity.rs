//! Who may say what: an agent speaks for its own node.

use std::io::Write as _;

use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::kubernetes::Namespace;
use tests::tools::Ran;

use super::stage::{driver_pod, standing, written};

#[test]
fn an_agent_writes_its_own_nodes_objects_only() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "foreign");
    let other = cluster.node(2).unwrap();
    let volume = written(&space, "data", Some(&other));
    let node = cluster.node(1).unwrap();
    let (_pod, uid) = driver_pod(cluster, "node", &node);
    let volumes = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected");
    let find = format!("cat {volumes}/*/token");
    let token = node.run(&["sh", "-c", &find]).unwrap().ok();
    let server = "jsonpath={.clusters[0].cluster.server}";
    let server = cluster.kubectl(&["config", "view", "-o", server]).unwrap();
    let agent = Agent {
        cluster,
        server,
        token: token.trim().to_owned(),
    };
    let refused = |ran: Ran, why: &str| {
        assert!(
            ran.code != Some(0) && ran.err.to_lowercase().contains(why),
            "{}: not {why}",
            ran.err
        );
    };
    let own_only = "its own node's objects only";
    let note = r#"{"metadata":{"annotations":{"vd.csi.io/created":"mine"}}}"#;
    let patch = ["patch", "localvolume", &volume, "--type=merge", "-p", note];
    refused(agent.asks(&patch), own_only);
    let deleted = json!({"state": "Deleted"});
    refused(agent.reports("LocalVolume", &volume, &deleted), own_only);
    let full = json!({"availableBytes": 0});
    refused(agent.reports("LocalPool", "node-2", &full), own_only);
    refused(agent.asks(&["delete", "localvolume", &volume]), "forbidden");
    refused(agent.asks(&["get", "secrets", "-A"]), "forbidden");
    // It is the right token: its own node's pool it may write.
    let own = agent.reports("LocalPool", "node-1", &json!({}));
    assert_eq!(own.code, Some(0), "{}", own.err);
    space.finish();
}

/// Who has an agent's token.
struct Agent {
    cluster: &'static Cluster,
    server: String,
    token: String,
}

impl Agent {
    fn asks(&self, words: &[&str]) -> Ran {
        let identity = [
            // Without the administrator's certificate.
            "--kubeconfig=/dev/null".to_owned(),
            format!("--server={}", self.server),
            "--insecure-skip-tls-verify".to_owned(),
            format!("--token={}", self.token),
        ];
        let mut all: Vec<&str> = identity.iter().map(String::as_str).collect();
        all.extend(words);
        self.cluster.try_kubectl(&all)
    }

    /// Writes a status, which an agent may patch and not read: `kubectl patch` would read it first.
    fn reports(&self, kind: &str, name: &str, status: &Value) -> Ran {
        let object = json!({
            "apiVersion": "vd.csi.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "status": status,
        });
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(object.to_string().as_bytes()).unwrap();
        self.asks(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "--subresource=status",
            "-f",
            file.path().to_str().unwrap(),
        ])
    }
}
