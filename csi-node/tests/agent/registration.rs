//! kubelet finds the driver.

use std::path::Path;
use std::time::Duration;

use csi_node::agent::registration::{Plugin, Registered, keep};
use proto::pluginregistration::registration_client::RegistrationClient;
use proto::pluginregistration::{InfoRequest, RegistrationStatus};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

pub async fn connect(socket: &Path) -> RegistrationClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    loop {
        if let Ok(channel) = endpoint.connect().await {
            return RegistrationClient::new(channel);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn status(plugin_registered: bool) -> RegistrationStatus {
    RegistrationStatus {
        plugin_registered,
        error: "another version is registered".to_owned(),
    }
}

#[tokio::test]
async fn kubelet_hears_who_we_are_and_is_asked_again_after_it_refused() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("vd.csi.io-reg.sock");
    let plugin = Plugin {
        driver: "vd.csi.io".to_owned(),
        endpoint: "/var/lib/kubelet/plugins/vd.csi.io/csi.sock".to_owned(),
    };
    let registered = Registered::default();
    let keeping = tokio::spawn(keep(folder.path().to_owned(), plugin, registered.clone()));
    let mut kubelet = connect(&socket).await;
    let info = kubelet.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.r#type, "CSIPlugin");
    assert_eq!(info.name, "vd.csi.io");
    assert_eq!(info.endpoint, "/var/lib/kubelet/plugins/vd.csi.io/csi.sock");
    assert_eq!(info.supported_versions, ["1.0.0"]);
    assert!(registered.get().is_err());
    let before = std::os::unix::fs::MetadataExt::ino(&socket.metadata().unwrap());
    // The answer may be lost: the socket goes with it.
    kubelet.notify_registration_status(status(false)).await.ok();
    assert!(registered.get().unwrap_err().contains("another version"));
    loop {
        let now = socket
            .metadata()
            .map(|file| std::os::unix::fs::MetadataExt::ino(&file));
        if now.is_ok_and(|now| now != before) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut kubelet = connect(&socket).await;
    kubelet.get_info(InfoRequest {}).await.unwrap();
    kubelet
        .notify_registration_status(status(true))
        .await
        .unwrap();
    assert_eq!(registered.get(), Ok(()));
    keeping.abort();
    keeping.await.unwrap_err();
    assert!(
        !socket.exists(),
        "kubelet forgets a driver whose socket is gone"
    );
}

#[tokio::test]
async fn nothing_else_ever_shows_in_the_folder_of_plugins() {
    let folder = TempDir::new().unwrap();
    let plugin = Plugin {
        driver: "vd.csi.io".to_owned(),
        endpoint: "/x".to_owned(),
    };
    let keeping = tokio::spawn(keep(
        folder.path().to_owned(),
        plugin,
        Registered::default(),
    ));
    connect(&folder.path().join("vd.csi.io-reg.sock")).await;
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["vd.csi.io-reg.sock"]);
    keeping.abort();
}
