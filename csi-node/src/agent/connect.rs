//! The connection to the API server.

use std::path::Path;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A client for the API server of the pod's own cluster, or of `kubeconfig`. Nothing is connected yet, so it does not matter
/// whether the server is there.
///
/// # Errors
/// When there is no pod's ServiceAccount, or the file cannot be read.
pub(super) async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        None => Config::incluster()
            .context("there is no ServiceAccount here: outside of a pod, give --kubeconfig")?,
        Some(path) => {
            let file =
                Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("use {}", path.display()))?
        }
    };
    api::client(&config).context("make a client for the API server")
}
