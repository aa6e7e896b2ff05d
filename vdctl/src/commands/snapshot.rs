//! `vdctl snapshot list` and `vdctl snapshot show`.

use pool::record::{Compression, DataChecksum, Packed, Packing, SnapshotRecord, Timestamp};
use pool::size::human;
use pool::{SnapshotId, View};

use super::volume::mode;
use crate::args::{ObjectCommand, Output};
use crate::output;

pub(crate) fn run(command: &ObjectCommand) -> anyhow::Result<()> {
    match command {
        ObjectCommand::List(read) => {
            let view = View::open(&read.pool)?;
            match read.output {
                Output::Json => {
                    let records: Vec<_> = view.snapshots().map(AsRef::as_ref).collect();
                    output::print_json(&records)
                }
                Output::Table => output::print(&list(&view)),
            }
        }
        ObjectCommand::Show { id, read } => {
            let record = View::open(&read.pool)?.snapshot(&SnapshotId::parse(id)?)?;
            match read.output {
                Output::Json => output::print_json(&record),
                Output::Table => {
                    let path = read.pool.join("snapshots").join(record.id.as_str());
                    output::print(&text(
                        &record,
                        &path.join("image.qcow2").display().to_string(),
                    ))
                }
            }
        }
    }
}

fn list(view: &View) -> String {
    let rows: Vec<Vec<String>> = view
        .snapshots()
        .map(|snapshot| {
            vec![
                snapshot.id.to_string(),
                snapshot.source_volume.to_string(),
                human(snapshot.virtual_bytes),
                human(snapshot.charge_bytes),
                mode(snapshot.mode),
                packing(snapshot.packing).to_owned(),
                utc(snapshot.created),
                if snapshot.damage.is_some() {
                    "damaged".to_owned()
                } else {
                    "ok".to_owned()
                },
            ]
        })
        .collect();
    output::table(
        &[
            "ID", "VOLUME", "SIZE", "CHARGE", "MODE", "PACKED", "CUT AT", "HEALTH",
        ],
        &rows,
    )
}

fn text(record: &SnapshotRecord, image: &str) -> String {
    format!(
        "id          {}\nname        {}\nvolume      {}\ncut at      {}\nsize        {} ({} bytes, asked for {})\ncharge      {}\nmode        {}\nextents     {}\npacked      {}\nheld back   {} us\ndata digest {}\nhealth      {}\nimage       {image}\n",
        record.id,
        record.name.escape_debug(),
        record.source_volume,
        utc(record.created),
        human(record.virtual_bytes),
        record.virtual_bytes,
        record.requested_bytes,
        human(record.charge_bytes),
        mode(record.mode),
        record.extents,
        packing(record.packing),
        record.stall_us,
        digest(record),
        health(record),
    )
}

fn packing(packing: Packing) -> &'static str {
    match packing {
        Packing::None => "no",
        Packing::Wanted(Compression::Zstd) => "zstd, to be done",
        Packing::Done(Packed {
            compression: Compression::Zstd,
            ..
        }) => "zstd",
    }
}

fn digest(record: &SnapshotRecord) -> String {
    match &record.checksum {
        None => "none asked for".to_owned(),
        Some(DataChecksum {
            digest: Some(digest),
            verified,
            ..
        }) => {
            let seen = verified.map_or(String::new(), |at| format!(", found so {}", utc(at)));
            format!("blake3 {digest}{seen}")
        }
        Some(_) => "blake3, not made yet".to_owned(),
    }
}

fn health(record: &SnapshotRecord) -> String {
    match &record.damage {
        None => "nothing wrong is known".to_owned(),
        Some(damage) => format!("DAMAGED since {}: {}", utc(damage.found), damage.reason),
    }
}

/// A moment as `2026-11-22T20:15:00Z`.
fn utc(moment: Timestamp) -> String {
    let seconds = moment.0 / 1_000_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month and day of the `days`th day since 1970, by counting whole 400-year cycles from a March 1st.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const CYCLE: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (cycle, day) = (days / CYCLE, days % CYCLE);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (
        cycle * 400 + year + u64::from(month <= 2),
        month,
        day_of_month,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_printed_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_772_323_199, "2026-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(Timestamp(seconds * 1_000_000_000)), text);
        }
    }
}
