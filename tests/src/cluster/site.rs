//! Where the parts of one cluster are: on disk, and in the network.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::network::Network;
use super::options::Options;
use super::process::Processes;
use crate::binaries;

/// The place of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) options: Options,
    pub(super) network: Network,
    pub(super) processes: Processes,
    programs: PathBuf,
}

impl Site {
    pub(super) fn new(options: Options, network: Network) -> Self {
        Self {
            processes: Processes::of(&options.folder),
            programs: programs(),
            options,
            network,
        }
    }

    /// The place that was written down in `folder`; nothing when no cluster was started there.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = record(folder);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let (options, index) = Options::from_json(folder.to_owned(), &text)
            .with_context(|| path.display().to_string())?;
        Ok(Some(Self::new(options, Network { index })))
    }

    pub(super) fn write(&self) -> Result<()> {
        let text = self.options.to_json(self.network.index).to_string();
        super::command::write(&record(&self.options.folder), text)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.options.folder
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.options.folder.join(name)
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.path("log").join(name).with_extension("log")
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The folder of the programs that were built for clusters.
    pub(super) fn programs(&self) -> &Path {
        &self.programs
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.network.apiserver())
    }

    /// `kubectl` as the cluster's administrator.
    pub(super) fn kubectl(&self) -> Command {
        let mut command = Command::new(self.program("kubectl"));
        let _command = command.arg("--kubeconfig").arg(self.kubeconfig());
        command
    }
}

fn record(folder: &Path) -> PathBuf {
    folder.join("cluster.json")
}

/// `.cache/cluster/bin`, or what `VD_CLUSTER_BIN` names.
fn programs() -> PathBuf {
    let usual = || binaries::project().join(".cache/cluster/bin");
    std::env::var_os("VD_CLUSTER_BIN").map_or_else(usual, PathBuf::from)
}
