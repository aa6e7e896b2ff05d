//! The story itself: what a person with a VM or a database on local disks does.

use std::time::Instant;

use anyhow::{Result, ensure};
use tests::cluster::TEST_IMAGE;

use crate::objects;
use crate::stage::{Stage, chapter, fact, seconds, shown};

/// Both kinds of volume go through everything together.
pub(crate) fn tell(stage: &Stage<'_>) -> Result<()> {
    use_volumes(stage)?;
    grow(stage)?;
    let before = snapshot(stage)?;
    restore(stage, &before)?;
    clone(stage)
}

/// What is in the filesystem and on the device of a pod.
fn digest(stage: &Stage<'_>, pod: &str) -> Result<String> {
    let line = "sha256sum < /data/file | cut -c1-16; dd if=/dev/disk bs=1M count=8 2>/dev/null | sha256sum | cut -c1-16";
    stage.run(pod, line)
}

fn fill(stage: &Stage<'_>, pod: &str) -> Result<()> {
    let line = "dd if=/dev/urandom of=/data/file bs=1M count=16 2>/dev/null && \
                dd if=/dev/urandom of=/dev/disk bs=1M count=8 conv=fsync 2>/dev/null && sync";
    stage.run(pod, line).map(drop)
}

fn use_volumes(stage: &Stage<'_>) -> Result<()> {
    chapter("2. Two claims, a pod");
    let started = Instant::now();
    stage.apply(
        &[
            objects::claim("data", "demo-xfs", "Filesystem", "512Mi", ""),
            objects::claim("disk", "vd", "Block", "256Mi", ""),
            objects::pod("app", TEST_IMAGE, "data", "disk"),
        ]
        .concat(),
    )?;
    stage.wait("pod/app", "condition=Ready")?;
    fact(
        "pod app",
        format!(
            "runs with a filesystem and a block device {} after `kubectl apply`",
            seconds(started)
        ),
    );
    fill(stage, "app")?;
    shown(&stage.kubectl(&["get", "localvolumes"])?);
    Ok(())
}

fn grow(stage: &Stage<'_>) -> Result<()> {
    chapter("3. Growth while the pod runs");
    let started = Instant::now();
    for (claim, size) in [("data", "1Gi"), ("disk", "512Mi")] {
        let patch = format!(r#"{{"spec":{{"resources":{{"requests":{{"storage":"{size}"}}}}}}}}"#);
        let _patched = stage.kubectl(&["patch", "pvc", claim, "-p", &patch])?;
    }
    for (claim, size) in [("pvc/data", "1Gi"), ("pvc/disk", "512Mi")] {
        stage.wait(
            claim,
            &format!("jsonpath={{.status.capacity.storage}}={size}"),
        )?;
    }
    let filesystem = stage.run("app", "df -h /data | tail -1 | awk '{print $2}'")?;
    let device: u64 = stage
        .run("app", "blockdev --getsize64 /dev/disk")?
        .parse()?;
    ensure!(device == 512 << 20, "the device has {device} bytes");
    fact(
        "grown",
        format!(
            "after {}: the filesystem has {filesystem}, the device {} MiB",
            seconds(started),
            device >> 20
        ),
    );
    Ok(())
}

fn snapshot(stage: &Stage<'_>) -> Result<String> {
    chapter("4. Snapshots, damage, restore");
    let before = digest(stage, "app")?;
    let started = Instant::now();
    stage.apply(
        &[
            objects::snapshot("data-1", "data"),
            objects::snapshot("disk-1", "disk"),
        ]
        .concat(),
    )?;
    for name in ["volumesnapshot/data-1", "volumesnapshot/disk-1"] {
        stage.wait(name, "jsonpath={.status.readyToUse}=true")?;
    }
    fact(
        "VolumeSnapshot",
        format!(
            "of both, ready to use after {}, under the running pod",
            seconds(started)
        ),
    );
    fill(stage, "app")?;
    ensure!(digest(stage, "app")? != before, "nothing was overwritten");
    fact("then", "the pod overwrites all of it");
    Ok(before)
}

fn restore(stage: &Stage<'_>, before: &str) -> Result<()> {
    let started = Instant::now();
    let (data, disk) = (
        objects::from_snapshot("data-1"),
        objects::from_snapshot("disk-1"),
    );
    stage.apply(
        &[
            objects::claim("data-old", "demo-xfs", "Filesystem", "1Gi", &data),
            objects::claim("disk-old", "vd", "Block", "512Mi", &disk),
            objects::pod("old", TEST_IMAGE, "data-old", "disk-old"),
        ]
        .concat(),
    )?;
    stage.wait("pod/old", "condition=Ready")?;
    ensure!(
        digest(stage, "old")? == before,
        "the restore differs from what was snapshotted"
    );
    fact(
        "restored",
        format!(
            "a second pod has both as they were, {} after `kubectl apply`",
            seconds(started)
        ),
    );
    Ok(())
}

fn clone(stage: &Stage<'_>) -> Result<()> {
    chapter("5. A clone of the running pod's volumes");
    let now = digest(stage, "app")?;
    let started = Instant::now();
    let (data, disk) = (objects::from_claim("data"), objects::from_claim("disk"));
    stage.apply(
        &[
            objects::claim("data-copy", "demo-xfs", "Filesystem", "1Gi", &data),
            objects::claim("disk-copy", "vd", "Block", "1Gi", &disk),
            objects::pod("copy", TEST_IMAGE, "data-copy", "disk-copy"),
        ]
        .concat(),
    )?;
    stage.wait("pod/copy", "condition=Ready")?;
    ensure!(
        digest(stage, "copy")? == now,
        "the clone differs from its source"
    );
    fact(
        "cloned",
        format!(
            "a third pod has both as they are now, {} after `kubectl apply`, on the same node",
            seconds(started)
        ),
    );
    shown(&stage.kubectl(&["get", "localsnapshots,localpools"])?);
    Ok(())
}
