//! What the first version with custom resources left, on disk and in the API server, is understood by this one. The folder
//! `older` was made by that version and is never made anew; only its images were compressed.

use std::fs;
use std::path::{Path, PathBuf};

use api::{LocalPool, LocalSnapshot, LocalVolume, Source, VolumeMode, VolumeState};
use kube::Api;
use kube::api::{Patch, PatchParams, ValidationDirective};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api_lost::{publish, unpublish};
use crate::machine::{Machine, run, text};
use crate::objects::{
    MIB, create, delete, is, merge, ready_volume, snapshots, volume, volume_is, volume_says,
    volumes,
};

const NODE: &str = "older-node";
const POOL: &str = "2b81d122-5131-4eb9-9f53-7c979af331a1";
/// A mounted ext4 with the file `kept`, and a snapshot of it.
const FILES: &str = "pvc-aca360b3-5d11-4e75-82f2-9fbefbf98d0e";
const FILES_CUT: &str = "snapshot-487d86c4-77d6-4c23-bbfc-8f470c288249";
/// A raw device full of the line `LINE`, a snapshot of it that is compressed and has a digest, and a restore of that.
const DISK: &str = "pvc-1ece0e11-ef05-40d7-abc0-3fd4215ad318";
const DISK_CUT: &str = "snapshot-2c6af643-87fb-490a-8867-0320bf51b2b0";
const DISK_AGAIN: &str = "pvc-3e6ee6ef-199c-4e22-aced-b96996b72d7c";

const FILE: &str = "by the first version\n";
const LINE: &str = "a disk of the first version\n";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/older")
}

fn image(machine: &Machine, volume: &str) -> PathBuf {
    machine.pool().join("volumes").join(volume).join("disk.img")
}

/// Lays the pool out on the node's disk.
fn unpack(machine: &Machine) {
    let (from, to) = (fixture().join("pool"), machine.pool());
    run(
        "install",
        &[
            "-m600",
            text(&from.join("marker")),
            text(&to.join(".vd-pool")),
        ],
    );
    for kind in ["volumes", "snapshots", "tmp", "trash"] {
        run("install", &["-d", "-m700", text(&to.join(kind))]);
    }
    for kind in ["volumes", "snapshots"] {
        for entry in fs::read_dir(from.join(kind)).unwrap() {
            let from = entry.unwrap().path();
            let to = to.join(kind).join(from.file_name().unwrap());
            run("install", &["-d", "-m700", text(&to)]);
            let record = text(&from.join("record")).to_owned();
            run("install", &["-m600", &record, text(&to.join("record"))]);
            let (name, mode) = match kind {
                "volumes" => ("disk.img", "600"),
                _ => ("image.qcow2", "400"),
            };
            let packed = from.join(format!("{name}.gz"));
            let unpack = "umask 077; gzip -dc \"$0\" >\"$1\" && chmod $2 \"$1\"";
            let image = to.join(name);
            run("sh", &["-c", unpack, text(&packed), text(&image), mode]);
        }
    }
}

/// Gives the API server an object of that version, in which it must know every field.
async fn bring_back<K>(machine: &Machine, object: &Value)
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::all(machine.client.clone());
    let name = object["metadata"]["name"].as_str().unwrap();
    let parameters = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("older")
    };
    api.patch(name, &parameters, &Patch::Apply(object))
        .await
        .unwrap();
    let parameters = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::default()
    };
    let status = json!({"status": object["status"]});
    api.patch_status(name, &parameters, &Patch::Merge(&status))
        .await
        .unwrap();
}

/// A raw device with the content of a snapshot.
async fn restored(machine: &Machine, snapshot: &str) -> String {
    let source = Source {
        snapshot: Some(snapshot.to_owned()),
        volume: None,
    };
    let mut wanted = volume(machine, MIB, Some(source));
    wanted.spec.volume_mode = VolumeMode::Block;
    wanted.spec.fs_type = None;
    let name = create(&volumes(machine), &wanted).await;
    volume_is(machine, &name, VolumeState::Ready).await;
    name
}

fn is_the_disk(path: &Path) {
    let content = fs::read(path).unwrap();
    let expected = LINE.repeat(4096);
    assert!(content.starts_with(expected.as_bytes()), "{path:?}");
}

async fn is_the_filesystem(machine: &Machine, volume: &str) {
    let mounted = publish(machine, volume).await;
    let kept = fs::read_to_string(format!("{mounted}/kept")).unwrap();
    assert_eq!(kept, FILE);
    unpublish(machine, volume).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_and_objects_of_the_first_version_are_understood() {
    let mut machine = Machine::named(NODE).await;
    unpack(&machine);
    let objects = fs::read_to_string(fixture().join("objects.json")).unwrap();
    let objects: Vec<Value> = serde_json::from_str(&objects).unwrap();
    for object in &objects {
        match object["kind"].as_str().unwrap() {
            "LocalPool" => bring_back::<LocalPool>(&machine, object).await,
            "LocalVolume" => bring_back::<LocalVolume>(&machine, object).await,
            _ => bring_back::<LocalSnapshot>(&machine, object).await,
        }
    }
    machine.start();
    // It is used, also what was asked for only now.
    is_the_filesystem(&machine, FILES).await;
    let grown = json!({"spec": {"sizeBytes": 2 * MIB, "requestedBytes": 2 * MIB}});
    merge(&volumes(&machine), DISK, grown).await;
    volume_says(&machine, DISK, |volume| {
        volume.status.as_ref().unwrap().size_bytes == Some(2 * MIB)
    })
    .await;
    is_the_disk(&image(&machine, DISK));
    is_the_disk(&image(&machine, DISK_AGAIN));
    let again = restored(&machine, DISK_CUT).await;
    is_the_disk(&image(&machine, &again));
    let source = Source {
        snapshot: Some(FILES_CUT.to_owned()),
        volume: None,
    };
    let files_again = ready_volume(&machine, 10 * MIB, Some(source)).await;
    is_the_filesystem(&machine, &files_again).await;
    let pool = machine
        .pool_says(|pool| pool.status.as_ref().unwrap().volumes == 5)
        .await;
    assert!(is(&pool, "Ready", "True") && is(&pool, "Damaged", "False"));
    let status = pool.status.unwrap();
    assert_eq!(status.pool_uuid.as_deref(), Some(POOL));
    assert_eq!((status.orphan_count, status.snapshots), (0, 2));
    for name in [FILES, DISK, DISK_AGAIN] {
        let volume = volumes(&machine).get(name).await.unwrap();
        let status = volume.status.unwrap();
        assert_eq!(
            (status.state, status.failure),
            (VolumeState::Ready, None),
            "{name}"
        );
    }
    for name in [FILES, DISK, DISK_AGAIN, &again, &files_again] {
        delete(&machine, &volumes(&machine), name).await;
    }
    for name in [FILES_CUT, DISK_CUT] {
        delete(&machine, &snapshots(&machine), name).await;
    }
    let empty = |pool: &LocalPool| {
        let status = pool.status.as_ref().unwrap();
        (status.volumes, status.snapshots) == (0, 0)
    };
    machine.pool_says(empty).await;
}
