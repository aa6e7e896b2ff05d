//! The addresses of a cluster, and the bridge that its nodes are plugged into.
//!
//! Clusters are told apart by an index, so that several run side by side. The API server listens on the first address of
//! the service range, which the host's bridge carries: a pod reaches `kubernetes.default` by plain routing, and nothing
//! has to rewrite packets. Other services have no address behind them: there is no kube-proxy.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::command::run;
use crate::tools;

/// Indices from 0 up to here, exclusive.
const CLUSTERS: u8 = 16;
/// Nodes of one cluster.
pub(super) const NODES: usize = 15;

/// The addresses of the cluster with this index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) index: u8,
}

impl Network {
    /// Takes the first index that no cluster has, by making its bridge, and writes on that whose it is.
    pub(super) fn claim(folder: &Path) -> Result<Self> {
        for index in 0..CLUSTERS {
            let network = Self { index };
            let made = tools::attempt("ip", &["link", "add", &network.bridge(), "type", "bridge"]);
            if made.code == Some(0) {
                let owner = folder.to_str().context("the folder's name is not text")?;
                let _quiet = run("ip", &["link", "set", &network.bridge(), "alias", owner])?;
                return Ok(network);
            }
            if !made.err.contains("File exists") {
                bail!("cannot make a network bridge: {made}");
            }
        }
        bail!(
            "{CLUSTERS} clusters run already (`ip link show type bridge`): stop one with `make cluster-down`"
        )
    }

    /// Gives the claimed bridge its addresses.
    pub(super) fn up(self) -> Result<()> {
        let bridge = self.bridge();
        let add = |address: &str| run("ip", &["address", "add", address, "dev", &bridge]);
        let _quiet = add(&format!("{}/24", self.host()))?;
        let _quiet = add(&format!("{}/32", self.apiserver()))?;
        let _quiet = run("ip", &["link", "set", &bridge, "up"])?;
        Ok(())
    }

    /// Whether the bridge is that of the cluster in `folder`: a cluster that was there before the machine restarted may
    /// have had the same index.
    pub(super) fn belongs_to(self, folder: &Path) -> bool {
        let alias = format!("/sys/class/net/{}/ifalias", self.bridge());
        std::fs::read_to_string(alias).is_ok_and(|owner| Path::new(owner.trim()) == folder)
    }

    /// Whether some cluster has this index.
    pub(super) fn is_claimed(self) -> bool {
        Path::new("/sys/class/net").join(self.bridge()).exists()
    }

    /// Removes the bridge of the cluster in `folder`; one that is not there is no error.
    pub(super) fn remove(self, folder: &Path) -> Result<()> {
        if !self.belongs_to(folder) {
            return Ok(());
        }
        let ran = tools::attempt("ip", &["link", "delete", &self.bridge()]);
        if ran.code == Some(0) || ran.err.contains("Cannot find device") {
            return Ok(());
        }
        bail!("{ran}")
    }

    pub(super) fn bridge(self) -> String {
        format!("vdc{}", self.index)
    }

    /// The host's end of the cable to a node.
    pub(super) fn cable(self, node: usize) -> String {
        format!("vdc{}n{node}", self.index)
    }

    /// The host, as the nodes see it.
    pub(super) fn host(self) -> String {
        format!("10.87.{}.1", self.index)
    }

    /// Where etcd and the controllers listen: the host alone can reach it.
    pub(super) fn loopback(self) -> String {
        format!("127.87.{}.1", self.index)
    }

    /// The API server, on port 443.
    pub(super) fn apiserver(self) -> String {
        format!("10.86.{}.1", self.index)
    }

    pub(super) fn services(self) -> String {
        format!("10.86.{}.0/24", self.index)
    }

    pub(super) fn node(self, node: usize) -> String {
        format!("10.87.{}.{}", self.index, 10 + node)
    }

    pub(super) fn pods(self, node: usize) -> String {
        format!("10.88.{}.0/24", usize::from(self.index) * 16 + node)
    }

    /// Takes the cable to `node` away, if there is one. The kernel would do so with the node's network, but not at once.
    pub(super) fn remove_cable(self, node: usize) -> Result<()> {
        let cable = self.cable(node);
        let ran = tools::attempt("ip", &["link", "delete", &cable]);
        // The kernel may have been faster; then the complaint depends on how much.
        if ran.code == Some(0) || !Path::new("/sys/class/net").join(&cable).exists() {
            return Ok(());
        }
        bail!("{ran}")
    }

    /// Plugs `node` (1, 2, ...) of `nodes` in, whose network namespace is that of the process `holder`.
    pub(super) fn plug(self, node: usize, nodes: usize, holder: i32) -> Result<()> {
        let (cable, holder) = (self.cable(node), holder.to_string());
        self.remove_cable(node)?;
        let ends = ["type", "veth", "peer", "name", "eth0", "netns", &holder];
        let _quiet = run("ip", &[&["link", "add", &cable], &ends[..]].concat())?;
        let _quiet = run(
            "ip",
            &["link", "set", &cable, "master", &self.bridge(), "up"],
        )?;
        let inside = |arguments: &str| {
            let words: Vec<&str> = arguments.split(' ').collect();
            run(
                "nsenter",
                &[&["-t", &holder, "-n", "ip"], &words[..]].concat(),
            )
            .with_context(|| format!("set up the network of node {node}"))
        };
        let _quiet = inside(&format!("address add {}/24 dev eth0", self.node(node)))?;
        let _quiet = inside("link set eth0 up")?;
        let _quiet = inside(&format!("route add default via {}", self.host()))?;
        for other in (1..=nodes).filter(|other| *other != node) {
            let (pods, gateway) = (self.pods(other), self.node(other));
            let _quiet = inside(&format!("route add {pods} via {gateway}"))?;
        }
        let (pods, gateway) = (self.pods(node), self.node(node));
        let _quiet = run("ip", &["route", "replace", &pods, "via", &gateway])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_clusters_share_a_range_of_pods() {
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..CLUSTERS {
            for node in 1..=NODES {
                assert!(seen.insert(Network { index }.pods(node)));
            }
        }
        assert!(seen.contains("10.88.255.0/24"));
    }
}
