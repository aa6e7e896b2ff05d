//! The configuration files of a node, as text.

use super::network::Network;

/// What of a node its configuration depends on.
#[derive(Clone, Debug)]
pub(super) struct NodeConfig {
    pub(super) network: Network,
    pub(super) number: usize,
    pub(super) name: String,
}

/// The image of the process that holds a pod's namespaces.
pub(super) const PAUSE: &str = "registry.k8s.io/pause:3.10.1";

impl NodeConfig {
    /// The control group below which all pods of this node are: two kubelets on one machine share the hierarchy.
    pub(super) fn cgroup(&self) -> String {
        format!("vdc{}-{}", self.network.index, self.name)
    }

    /// `/etc/kubernetes/kubelet.yaml`.
    pub(super) fn kubelet(&self) -> String {
        format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: /etc/kubernetes/pki/ca.crt}}
authorization: {{mode: Webhook}}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
# The machine may still have control groups of version 1, and its other work is none of kubelet's business.
failCgroupV1: false
enforceNodeAllocatable: []
failSwapOn: false
makeIPTablesUtilChains: false
# There is no DNS; without an address kubelet would warn in an event of every pod.
clusterDNS: [{dns}]
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
# The disk is the developer's: how full it is says nothing about the node.
evictionHard: {{nodefs.available: \"1%\", imagefs.available: \"1%\", memory.available: 100Mi}}
imageGCHighThresholdPercent: 100
syncFrequency: 5s
# Tests kill containers again and again, and would else wait up to five minutes for each.
crashLoopBackOff: {{maxContainerRestartPeriod: 5s}}
",
            cgroup = self.cgroup(),
            dns = self.network.host(),
        )
    }

    /// `/etc/containerd/config.toml`.
    pub(super) fn containerd() -> String {
        format!(
            "version = 3
root = \"/var/lib/containerd\"
state = \"/run/containerd\"
[grpc]
  address = \"/run/containerd/containerd.sock\"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = \"{PAUSE}\"
[plugins.'io.containerd.cri.v1.runtime']
  # Lowering the score is refused in some sandboxes; nobody here needs it.
  restrict_oom_score_adj = true
  # Raw block devices for pods that run as a user, as KubeVirt and CDI need it.
  device_ownership_from_security_context = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [\"/usr/lib/cni\"]
    conf_dir = \"/etc/cni/net.d\"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = \"io.containerd.runc.v2\"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = \"/usr/sbin/runc\"
"
        )
    }

    /// `/etc/cni/net.d/10-pods.conflist`: plain routing, no address translation.
    pub(super) fn cni(&self) -> String {
        let network = serde_json::json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [{
                "type": "bridge",
                "bridge": "pods",
                "isGateway": true,
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": self.network.pods(self.number)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }],
        });
        format!("{network:#}\n")
    }

    /// `/etc/hosts`.
    pub(super) fn hosts(&self) -> String {
        format!(
            "127.0.0.1 localhost\n{} {}\n",
            self.network.node(self.number),
            self.name
        )
    }
}
