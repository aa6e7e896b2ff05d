//! The right disk, once, by one agent.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use api::{LocalPool, VolumeState};
use kube::Api;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::machine::Machine;
use crate::objects::{
    MIB, condition, create, is, merge_status, ready_volume, volume, volume_is, volume_says, volumes,
};
use crate::registration;

fn reason(pool: &LocalPool) -> String {
    condition(pool, "Ready")
        .map(|(_, reason)| reason)
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_disk_is_reported_and_takes_no_volumes_until_the_right_one_is_there() {
    let mut machine = Machine::started().await;
    let there = ready_volume(&machine, 64 * MIB, None).await;
    machine.stop();
    let pools: Api<LocalPool> = Api::all(machine.client.clone());
    let right = pools.get(&machine.name).await.unwrap();
    let uuid = right.status.unwrap().pool_uuid.unwrap();
    // The node had another disk, as far as the cluster remembers.
    let other = uuid::Uuid::new_v4().to_string();
    let remembers = |uuid: &str| json!({"status": {"poolUuid": uuid}});
    merge_status(&pools, &machine.name, remembers(&other)).await;
    machine.start();
    let wrong = machine.pool_says(|pool| reason(pool) == "WrongPool").await;
    assert!(is(&wrong, "Ready", "False"));
    let status = wrong.status.unwrap();
    assert_eq!((status.pool_uuid, status.available_bytes), (Some(other), 0));
    let new = create(&volumes(&machine), &volume(&machine, 64 * MIB, None)).await;
    let refused = volume_says(&machine, &new, |volume| {
        volume
            .status
            .as_ref()
            .is_some_and(|status| status.failure.is_some())
    })
    .await;
    assert_eq!(refused.status.unwrap().failure.unwrap().kind, "Unavailable");
    assert!(!machine.pool().join("volumes").join(&new).exists());
    // What is there is not lost: it is not known.
    let known = volumes(&machine).get(&there).await.unwrap();
    assert_eq!(known.status.unwrap().state, VolumeState::Ready);
    merge_status(&pools, &machine.name, remembers(&uuid)).await;
    machine.pool_says(|pool| is(pool, "Ready", "True")).await;
    volume_is(&machine, &new, VolumeState::Ready).await;
}

fn wipe(machine: &Machine) {
    for entry in fs::read_dir(machine.pool()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
}

fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_is_not_made_a_pool_again() {
    let mut machine = Machine::started().await;
    machine.stop();
    wipe(&machine);
    machine.start();
    machine
        .pool_says(|pool| reason(pool) == "PoolMissing")
        .await;
    assert_eq!(fs::read_dir(machine.pool()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_its_disk_is_ready_once_kubelet_has_it_so_that_others_can_be_replaced() {
    let mut machine = Machine::started().await;
    machine.stop();
    wipe(&machine);
    let address = free_address();
    machine.start_with(address.port(), &[]);
    machine
        .pool_says(|pool| reason(pool) == "PoolMissing")
        .await;
    let said = get(address, "/readyz").await.unwrap();
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
    assert!(said.contains("kubelet has not asked"), "{said}");
    let socket = machine
        .kubelet()
        .join("plugins_registry/vd.csi.io-reg.sock");
    let mut kubelet = registration::connect(&socket).await;
    let registered = registration::status(true);
    kubelet
        .notify_registration_status(registered)
        .await
        .unwrap();
    let said = get(address, "/readyz").await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_pool_is_not_made_a_pool() {
    let mut machine = Machine::new().await;
    fs::create_dir(machine.pool().join("volumes")).unwrap();
    machine.start();
    machine
        .pool_says(|pool| reason(pool) == "NotInitialised")
        .await;
    assert!(!machine.pool().join(".vd-pool").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_on_one_pool_is_refused_and_says_so() {
    let machine = Machine::started().await;
    let address = free_address();
    let mut second = machine.spawn(
        "second.sock",
        address.port(),
        &["--driver-name=second.csi.io"],
    );
    let said = loop {
        if let Ok(answer) = get(address, "/readyz").await
            && answer.contains("another running process")
        {
            break answer;
        }
        assert!(second.try_wait().unwrap().is_none(), "it does not end");
        tokio::task::yield_now().await;
    };
    second.kill().unwrap();
    second.wait().unwrap();
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
    // It does not contradict the one that owns the pool.
    machine.pool_says(|pool| is(pool, "Ready", "True")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_on_one_pool_leaves_the_objects_to_the_first() {
    let machine = Machine::started().await;
    let mut second = machine.spawn("second.sock", 0, &["--driver-name=second.csi.io"]);
    let refused = || {
        let log = fs::read_to_string(machine.path().join("second.sock.log"));
        log.is_ok_and(|log| log.contains("another running process"))
    };
    while !refused() {
        assert!(second.try_wait().unwrap().is_none(), "it does not end");
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        let name = create(&volumes(&machine), &volume(&machine, 64 * MIB, None)).await;
        let said = std::cell::RefCell::new(Vec::new());
        volume_says(&machine, &name, |volume| {
            let status = volume.status.clone().unwrap_or_default();
            said.borrow_mut()
                .extend(status.failure.map(|failure| failure.message));
            status.state == VolumeState::Ready
        })
        .await;
        let said = said.into_inner();
        assert!(said.is_empty(), "{said:?}");
        crate::objects::delete(&machine, &volumes(&machine), &name).await;
    }
    second.kill().unwrap();
    second.wait().unwrap();
}

async fn get(server: std::net::SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(server).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
