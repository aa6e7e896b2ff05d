//! What a node has on disk before its first start.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Node;
use crate::cluster::command::{make_folder, run, write};
use crate::cluster::node_config::NodeConfig;
use crate::cluster::pki::{Pki, kubeconfig};

impl Node {
    /// Makes the node's disk and files, starts it up to containerd, and imports `images`.
    pub(in crate::cluster) fn first_start(&self, images: &[PathBuf]) -> Result<()> {
        self.prepare()?;
        self.boot()?;
        images.iter().try_for_each(|image| self.import_image(image))
    }

    /// Everything that has to be there once: the disk, certificates and configuration.
    fn prepare(&self) -> Result<()> {
        let folder = self.folder();
        let inside = [
            "root",
            "etc/kubernetes/pki",
            "etc/containerd",
            "etc/cni/net.d",
        ];
        let below_var = [
            "vd",
            "log",
            "lib/kubelet",
            "lib/containerd",
            "lib/cni",
            "tmp",
        ];
        for name in inside {
            make_folder(&folder.join(name))?;
        }
        for name in below_var {
            make_folder(&folder.join("var").join(name))?;
        }
        self.disk().make()?;
        self.configure(&folder.join("etc"))
    }

    fn configure(&self, etc: &Path) -> Result<()> {
        let (name, config, pki) = (self.name(), self.config(), Pki::of(&self.site));
        pki.issue(&name, &format!("/O=system:nodes/CN=system:node:{name}"))?;
        for file in [
            "ca.crt".to_owned(),
            format!("{name}.crt"),
            format!("{name}.key"),
        ] {
            let target = etc.join("kubernetes/pki").join(&file);
            let _quiet = run("cp", &[pki.file(&file), target])?;
        }
        let pki = Path::new("/etc/kubernetes/pki");
        let api = kubeconfig(&self.site.url(), &name, pki);
        write(&etc.join("kubernetes/kubelet.kubeconfig"), api)?;
        write(&etc.join("kubernetes/kubelet.yaml"), config.kubelet())?;
        write(
            &etc.join("containerd/config.toml"),
            NodeConfig::containerd(),
        )?;
        write(&etc.join("cni/net.d/10-pods.conflist"), config.cni())?;
        write(&etc.join("hosts"), config.hosts())?;
        write(&etc.join("resolv.conf"), "")?;
        write(&etc.join("passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        write(&etc.join("group"), "root:x:0:\n")?;
        let machine = uuid::Uuid::new_v4().simple().to_string();
        write(&etc.join("machine-id"), format!("{machine}\n"))
    }
}
