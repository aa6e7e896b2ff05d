//! Loop devices on the pool's filesystem, and what is mounted from them.

use std::collections::BTreeMap;

use pool::View;
use pool::attach::loop_device::{self, ImageKey, Usage};

use super::Report;

pub(super) fn check(view: &View, report: &mut Report) -> anyhow::Result<()> {
    let mut owners: BTreeMap<(u64, u64), String> = BTreeMap::new();
    for volume in view.volumes() {
        if let Ok(image) = view.volume_image(&volume.id) {
            let key = ImageKey::of(&image)?;
            owners.insert((key.device, key.inode), volume.id.to_string());
        }
    }
    let mut writers: BTreeMap<(u64, u64), Vec<u32>> = BTreeMap::new();
    for device in loop_device::all_backed_by_device(view.device())? {
        let key = (device.image.device, device.image.inode);
        let path = device.path().display().to_string();
        let Some(owner) = owners.get(&key) else {
            stranger(view, &path, device.number, report);
            continue;
        };
        report.devices += 1;
        if !device.whole {
            report.add(&path, format!("shows only a part of the volume {owner}"));
        }
        if device.autoclear && loop_device::usage(&device)? != Usage::None {
            report.add(
                &path,
                format!("of the volume {owner} goes away with its last user"),
            );
        }
        if !device.read_only {
            writers.entry(key).or_default().push(device.number);
        }
    }
    for (key, numbers) in writers.into_iter().filter(|(_, numbers)| numbers.len() > 1) {
        let owner = owners.get(&key).map_or("?", String::as_str);
        report.add(
            owner,
            format!("is attached for writing more than once: loop devices {numbers:?}"),
        );
    }
    Ok(())
}

/// A device on a file of the pool's filesystem that is no volume. Files of others may lie there too.
fn stranger(view: &View, path: &str, number: u32, report: &mut Report) {
    let hint = loop_device::backing_path_hint(number).unwrap_or_default();
    let folder = format!("{}/", view.path().join("volumes").display());
    if hint.contains(&folder) || hint.contains("/trash/") && hint.contains("disk.img") {
        report.devices += 1;
        report.add(
            path,
            format!("is bound to {hint:?}, which is no volume's image"),
        );
    }
}
