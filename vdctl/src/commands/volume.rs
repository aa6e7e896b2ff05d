//! `vdctl volume list` and `vdctl volume show`.

use std::os::unix::fs::MetadataExt;

use pool::attach::loop_device::{self, ImageKey, Usage};
use pool::attach::mountinfo::MountTable;
use pool::record::{Source, VolumeMode, VolumeRecord};
use pool::size::human;
use pool::{View, VolumeId};
use serde::Serialize;

use crate::args::{ObjectCommand, Output};
use crate::output;

#[derive(Serialize)]
struct Shown {
    record: VolumeRecord,
    allocated_bytes: Option<u64>,
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Device {
    path: String,
    read_only: bool,
    direct_io: bool,
    mounts: Vec<String>,
}

pub(crate) fn run(command: &ObjectCommand) -> anyhow::Result<()> {
    match command {
        ObjectCommand::List(read) => {
            let view = View::open(&read.pool)?;
            match read.output {
                Output::Json => {
                    let records: Vec<_> = view.volumes().map(AsRef::as_ref).collect();
                    output::print_json(&records)
                }
                Output::Table => output::print(&list(&view)),
            }
        }
        ObjectCommand::Show { id, read } => {
            let view = View::open(&read.pool)?;
            let shown = gather(&view, &VolumeId::parse(id)?)?;
            match read.output {
                Output::Json => output::print_json(&shown),
                Output::Table => output::print(&text(&shown)),
            }
        }
    }
}

fn list(view: &View) -> String {
    let rows: Vec<Vec<String>> = view
        .volumes()
        .map(|volume| {
            vec![
                volume.id.to_string(),
                human(volume.size_bytes),
                allocated(view, &volume.id).map_or_else(|| "?".to_owned(), human),
                mode(volume.mode),
                volume.provisioning.to_string(),
                state(view, &volume.id),
                source(volume.source.as_ref()),
            ]
        })
        .collect();
    output::table(
        &[
            "ID",
            "SIZE",
            "USED",
            "MODE",
            "PROVISIONING",
            "STATE",
            "SOURCE",
        ],
        &rows,
    )
}

fn gather(view: &View, id: &VolumeId) -> anyhow::Result<Shown> {
    let record = view.volume(id)?;
    let mut devices = Vec::new();
    if let Ok(image) = view.volume_image(id) {
        let mounts = MountTable::read()?;
        for device in loop_device::find(ImageKey::of(&image)?)? {
            let places = mounts
                .of_filesystem(device.device_number())
                .chain(mounts.of_loop_node(device.number))
                .map(|mount| mount.mount_point.display().to_string())
                .collect();
            devices.push(Device {
                path: device.path().display().to_string(),
                read_only: device.read_only,
                direct_io: device.direct_io,
                mounts: places,
            });
        }
    }
    Ok(Shown {
        allocated_bytes: allocated(view, id),
        record,
        devices,
    })
}

fn text(shown: &Shown) -> String {
    let record = &shown.record;
    let used = shown
        .allocated_bytes
        .map_or_else(|| "IMAGE MISSING".to_owned(), human);
    let mut text = format!(
        "id            {}\nname          {}\nsize          {} ({} bytes, asked for {})\nused          {used}\nmode          {}\nprovisioning  {}\naccess modes  {}\nsource        {}\nstaged once   {}\n",
        record.id,
        record.name.escape_debug(),
        human(record.size_bytes),
        record.size_bytes,
        record.requested_bytes,
        mode(record.mode),
        record.provisioning,
        record.access_modes.join(", "),
        source(record.source.as_ref()),
        if record.staged { "yes" } else { "no" },
    );
    for device in &shown.devices {
        let line = format!(
            "device        {}{}{}{}\n",
            device.path,
            if device.read_only { ", read-only" } else { "" },
            if device.direct_io {
                ""
            } else {
                ", NO DIRECT I/O"
            },
            device
                .mounts
                .iter()
                .map(|at| format!("\n  at          {at}"))
                .collect::<String>(),
        );
        text.push_str(&line);
    }
    text
}

fn allocated(view: &View, id: &VolumeId) -> Option<u64> {
    Some(view.volume_image(id).ok()?.metadata().ok()?.blocks() * 512)
}

fn state(view: &View, id: &VolumeId) -> String {
    let usage = || -> pool::Result<&'static str> {
        let image = view.volume_image(id)?;
        let mut state = "idle";
        for device in loop_device::find(ImageKey::of(&image)?)? {
            state = match loop_device::usage(&device)? {
                Usage::None => "attached",
                Usage::Mounted(_) => "mounted",
                Usage::Published(_) | Usage::Held(_) => "published",
            };
        }
        Ok(state)
    };
    usage().map_or_else(|_| "DAMAGED".to_owned(), str::to_owned)
}

pub(super) fn mode(mode: VolumeMode) -> String {
    mode.fs_type()
        .map_or_else(|| "block".to_owned(), |fs| fs.to_string())
}

fn source(source: Option<&Source>) -> String {
    match source {
        None => "-".to_owned(),
        Some(Source::Snapshot(id)) => id.to_string(),
        Some(Source::Volume(id)) => id.to_string(),
    }
}
