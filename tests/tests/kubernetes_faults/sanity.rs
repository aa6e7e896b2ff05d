//! csi-sanity v5.6.0 against csi-controller's and csi-node's sockets in their pods, through the real API server.

use std::fs::File;
use std::path::{Path, PathBuf};

use tests::cluster::Cluster;
use tests::sanity::Run;
use tests::sanity::conformance::assert_conforms;
use tests::scratch_fs::GIB;

use super::stage::{alone, driver_pod, watch};

/// Where the agent may mount: its container shares this folder with kubelet.
const PLUGINS: &str = "/var/lib/kubelet/plugins";

/// Takes so much of node 2 that every volume comes to node 1, whose sockets csi-sanity speaks to: it knows of no other node.
struct Full(PathBuf);

impl Full {
    fn make(cluster: &Cluster) -> Self {
        let node = cluster.node(2).unwrap();
        let path = node.pool().join("foreign-file");
        let made = Self(path.clone());
        let file = File::create(&path).unwrap();
        nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, 16 << 30).unwrap();
        watch(cluster, "localpool", &node.name(), "it fills up", |pool| {
            let free = pool["status"]["availableBytes"].as_u64();
            free.is_some_and(|free| free < 4 * GIB)
        });
        made
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

fn conforms(access: &'static str, fs_type: Option<&'static str>) {
    let (_alone, cluster) = alone();
    let node = cluster.node(1).unwrap();
    let _full = Full::make(cluster);
    let (_name, uid) = driver_pod(cluster, "controller", &node);
    let controller =
        format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/socket/csi.sock");
    let inside = Path::new(PLUGINS).join("sanity");
    let folder = node.folder().join(inside.strip_prefix("/").unwrap());
    let run = Run {
        socket: Path::new(PLUGINS).join("vd.csi.io/csi.sock"),
        controller: Some(controller.into()),
        folder: folder.clone(),
        access,
        parameters: fs_type
            .map(|fs_type| ("csi.storage.k8s.io/fstype", fs_type))
            .into_iter()
            .collect(),
        bytes: GIB,
        without: &[],
    };
    let report = run.start_in(&node, &inside).finish();
    assert_conforms(&report, 0);
    std::fs::remove_dir_all(folder).unwrap();
    tests::kubernetes::pools_are_clean(cluster);
    let left = cluster.kubectl(&["get", "localvolumes,localsnapshots", "-o", "name"]);
    assert_eq!(left.unwrap(), "");
}

#[test]
fn ext4_volumes_conform() {
    conforms("mount", None);
}

#[test]
fn xfs_volumes_conform() {
    conforms("mount", Some("xfs"));
}

#[test]
fn block_volumes_conform() {
    conforms("block", None);
}
