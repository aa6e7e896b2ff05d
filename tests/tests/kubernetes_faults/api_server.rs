//! The API server is away for a while.

use std::path::Path;
use std::time::Duration;

use tests::client::{Client, accepted};
use tests::cluster::{Cluster, Component, Node};
use tests::kubernetes::{Claim, Namespace, Pod, snapshot};
use tests::{csi, requests, wait};

use super::stage::{alone, rolled_out};
use super::writer::Writer;

/// Where a pod's volume would be that nobody but the test asks for.
const TARGET: &str = "/var/lib/kubelet/pods/by-hand/volumes/kubernetes.io~csi/by-hand";
/// How long kubelet may take to start a container again.
const RESTARTS: Duration = Duration::from_secs(110);

/// A connection to the agent's socket, which the host sees through the node's root.
fn agent(node: &Node) -> Option<Client> {
    let root = node.root().unwrap();
    let client = Client::connect(&root.join("var/lib/kubelet/plugins/vd.csi.io/csi.sock")).ok()?;
    client.is_ready().then_some(client)
}

/// Publishes a volume once more, as for another pod, reads there, and unpublishes it.
fn publish_once_more(node: &Node, client: &Client, volume: &str) {
    let globals = "/var/lib/kubelet/plugins/kubernetes.io/csi/vd.csi.io/*";
    let find = format!("dirname $(grep -l '{volume}' {globals}/vol_data.json)");
    let staged = node.run(&["sh", "-c", &find]).unwrap().ok();
    let staging = Path::new(staged.trim()).join("globalmount");
    let _made = node.run(&["mkdir", "-p", TARGET]).unwrap().ok();
    let target = format!("{TARGET}/mount");
    let published = client.node_publish_volume(csi::NodePublishVolumeRequest {
        volume_id: volume.to_owned(),
        staging_target_path: staging.display().to_string(),
        target_path: target.clone(),
        volume_capability: Some(requests::filesystem("ext4")),
        ..Default::default()
    });
    let _published = accepted(published);
    let log = format!("{target}/log");
    let first = node.run(&["head", "-n", "1", &log]).unwrap().ok();
    assert_eq!(first.trim(), "1 7919 end");
    let _stats = accepted(
        client.node_get_volume_stats(csi::NodeGetVolumeStatsRequest {
            volume_id: volume.to_owned(),
            volume_path: target.clone(),
            staging_target_path: staging.display().to_string(),
        }),
    );
    let unpublished = client.node_unpublish_volume(csi::NodeUnpublishVolumeRequest {
        volume_id: volume.to_owned(),
        target_path: target,
    });
    let _unpublished = accepted(unpublished);
    let gone = "rmdir -p --ignore-fail-on-non-empty /var/lib/kubelet/pods/by-hand/volumes/kubernetes.io~csi/by-hand";
    let _gone = node.run(&["sh", "-c", gone]).unwrap().ok();
}

/// The API server is away as long as this lives, and not for the tests that follow one that has failed.
struct Away(&'static Cluster);

impl Away {
    #[track_caller]
    fn begin(cluster: &'static Cluster) -> Self {
        cluster.stop_component(Component::ApiServer).unwrap();
        Self(cluster)
    }

    #[track_caller]
    fn end(self) {
        self.0.start_component(Component::ApiServer).unwrap();
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let _it_runs = self.0.start_component(Component::ApiServer);
    }
}

#[test]
fn while_the_api_server_is_away_pods_write_and_volumes_are_mounted_and_then_work_goes_on() {
    let (_alone, cluster) = alone();
    let space = Namespace::new(cluster, "away");
    let node = cluster.node(1).unwrap();
    let writer = Writer::start(&space, &node);
    let volume = space.volume_of(&writer.name);
    // Work that is under way then.
    space.apply(&[
        Claim::new("later").object(),
        Pod::new("later").mount("later").object(),
        snapshot("cut", &writer.name),
    ]);
    let away = Away::begin(cluster);

    let before = Writer::lines_seen_in(&node, &volume);
    publish_once_more(&node, &agent(&node).expect("the agent answers"), &volume);
    // Also an agent that starts without it.
    let kill = "kill -9 $(pgrep --exact csi-node)";
    // With the first of them the others may be gone already.
    let _killed = node.run(&["sh", "-c", kill]).unwrap();
    let mut client = None;
    wait::until("kubelet starts the agent again", RESTARTS, || {
        client = agent(&node);
        client.is_some()
    });
    publish_once_more(&node, &client.expect("it answers"), &volume);
    wait::until("the pod goes on writing", RESTARTS, || {
        Writer::lines_seen_in(&node, &volume) > before + 20
    });

    away.end();
    space.ready("later");
    space.snapshot_ready("cut");
    rolled_out(cluster);
    assert!(writer.check(&space) > before);
    space.clear();
}
