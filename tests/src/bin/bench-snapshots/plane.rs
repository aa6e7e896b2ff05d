//! The API server of one side, which writes down who asks for what.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use tempfile::TempDir;
use tests::manifests::api_server::{ApiServer, User, snapshot_definitions};

use crate::programs::USERS;

/// A running API server with the definitions of snapshots. Everything of it goes when this does.
#[derive(Debug)]
pub(crate) struct Plane {
    server: ApiServer,
    folder: TempDir,
}

impl Plane {
    /// Starts it, and waits until it is ready.
    pub(crate) fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let policy = folder.path().join("audit.json");
        let rule = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
            // A watch is written down when it begins: most never end, and many begin with a list.
            "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata"}],
        });
        serde_json::to_writer(std::fs::File::create(&policy)?, &rule)?;
        let more = [
            format!("--audit-policy-file={}", policy.display()),
            format!(
                "--audit-log-path={}",
                folder.path().join("audit.log").display()
            ),
        ];
        let server = ApiServer::start_with(&more);
        let definitions = snapshot_definitions();
        let definitions = definitions.to_str().context("a path is not text")?;
        let _applied = server
            .kubectl(&User::Admin, &["apply", "--server-side", "-f", definitions])
            .ok();
        server.wait_established();
        let subjects = USERS.map(
            |name| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}),
        );
        let rights = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "bench"}, "subjects": subjects,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        });
        let _bound = server.send(&User::Admin, &["create"], &rights).ok();
        Ok(Self { server, folder })
    }

    /// The kubeconfig of a program's user.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.server.kubeconfig(&User::Named(user.to_owned()))
    }

    /// An address that only processes of this run use.
    pub(crate) fn free_address(&self, port: u16) -> String {
        self.server.free_address(port)
    }

    /// Where the requests are written down.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    /// Where a program can keep its log.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client of an administrator.
    pub(crate) async fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.server.kubeconfig(&User::Admin))?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(Client::try_from(config)?)
    }
}
