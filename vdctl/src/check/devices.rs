//! Loop devices on the pool's filesystem, and what is mounted from them.

use std::collections::BTreeMap;
use std::path::Path;

use pool::attach::loop_device::{self, ImageKey, LoopDevice, Usage};
use pool::attach::mountinfo::MountTable;
use pool::{ErrorKind, View, VolumeId};

use super::Report;

pub(super) fn check(view: &View, report: &mut Report) -> anyhow::Result<()> {
    let mut owners: BTreeMap<(u64, u64), VolumeId> = BTreeMap::new();
    for volume in view.volumes() {
        if let Ok(image) = view.volume_image(&volume.id) {
            let key = ImageKey::of(&image)?;
            owners.insert((key.device, key.inode), volume.id.clone());
        }
    }
    let mut writers: BTreeMap<(u64, u64), Vec<u32>> = BTreeMap::new();
    for device in loop_device::all_backed_by_device(view.device())? {
        let key = (device.image.device, device.image.inode);
        let Some(owner) = owners.get(&key) else {
            stranger(view, &device, report);
            continue;
        };
        report.devices += 1;
        check_device(&device, owner, report)?;
        check_use(view, &device, owner, report)?;
        if !device.read_only {
            writers.entry(key).or_default().push(device.number);
        }
    }
    for (key, numbers) in writers.into_iter().filter(|(_, numbers)| numbers.len() > 1) {
        let owner = owners.get(&key).map_or("?", VolumeId::as_str);
        report.add(
            owner,
            format!("is attached for writing more than once: loop devices {numbers:?}"),
        );
    }
    Ok(())
}

fn check_device(device: &LoopDevice, owner: &VolumeId, report: &mut Report) -> anyhow::Result<()> {
    let path = device.path().display().to_string();
    if !device.whole {
        report.add(&path, format!("shows only a part of the volume {owner}"));
    }
    if device.autoclear && loop_device::usage(device)? != Usage::None {
        report.add(
            &path,
            format!("of the volume {owner} goes away with its last user"),
        );
    }
    Ok(())
}

/// Who uses a volume was let to it by its record, and through the whole of it. kubelet binds folders of a volume too, for a
/// `subPath`, but never when the volume itself is not mounted any more.
fn check_use(
    view: &View,
    device: &LoopDevice,
    owner: &VolumeId,
    report: &mut Report,
) -> anyhow::Result<()> {
    let used = match loop_device::usage(device)? {
        Usage::None => None,
        Usage::Mounted(at) => Some(format!("mounted at {}", at.display())),
        Usage::Published(at) => Some(format!("published at {}", at.display())),
        Usage::Held(number) => Some(format!("held by /dev/loop{number}")),
    };
    if let Some(used) = used
        && !was_staged(view, owner)?
    {
        report.add(
            owner.as_str(),
            format!("is {used}, though its record says that it was never staged"),
        );
    }
    let table = MountTable::read()?;
    let mounts: Vec<_> = table.of_filesystem(device.device_number()).collect();
    let whole = mounts.iter().any(|mount| mount.root == Path::new("/"));
    if let Some(part) = mounts.first().filter(|_| !whole) {
        report.add(
            owner.as_str(),
            format!(
                "is mounted nowhere but for its folder {}, at {}",
                part.root.display(),
                part.mount_point.display()
            ),
        );
    }
    Ok(())
}

/// By the record as it is now: a server may have staged the volume since the others were read.
fn was_staged(view: &View, id: &VolumeId) -> anyhow::Result<bool> {
    match view.volume(id) {
        Ok(record) => Ok(record.staged),
        // Deleted meanwhile, or damaged: said elsewhere.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// A device on a file of the pool's filesystem that is no volume. Files of others may lie there too.
fn stranger(view: &View, device: &LoopDevice, report: &mut Report) {
    let Some(shown) = loop_device::backing_path(device.number) else {
        return;
    };
    let pool = view.path().canonicalize();
    let pool = pool.as_deref().unwrap_or(view.path());
    let ours = ["volumes", "trash", "tmp"].map(|part| pool.join(part));
    if ours.iter().any(|folder| shown.starts_with(folder)) {
        report.devices += 1;
        report.add(
            device.path().display().to_string(),
            format!(
                "is bound to {}, which is no volume's image",
                shown.display()
            ),
        );
    }
}
