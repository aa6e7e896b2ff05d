//! What is wrong with volumes.

use pool::attach::loop_device::{self, ImageKey, Usage};
use pool::{ErrorKind, Pool, VolumeId};
use proto::errors::{Failure, Kind};

use super::LocalNode;

/// Something that is wrong with a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Its record cannot be trusted; record and image are kept.
    RecordDamaged(String),
    /// Its image is missing, or has another size than the record says.
    ImageDamaged(String),
    /// Its record or its image cannot be read now. That says nothing of what is in it.
    Unreadable(String),
    /// The pool cannot be used.
    PoolUnavailable(String),
}

impl LocalNode {
    /// What is wrong with a volume; nothing, for a healthy one.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn volume_problems(&self, id: &VolumeId) -> Result<Vec<Problem>, Failure> {
        let id = id.clone();
        self.short(move |node| match node.pool() {
            Ok(pool) => problems(&pool, &id),
            Err(failure) => Ok(vec![Problem::PoolUnavailable(failure.message)]),
        })
        .await
    }

    /// The ids of volumes that have problems, with them, in the order of their ids.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn troubled_volumes(&self) -> Result<Vec<(VolumeId, Vec<Problem>)>, Failure> {
        self.short(|node| {
            let pool = node.pool()?;
            let (volumes, _) = pool.volumes(None, usize::MAX);
            let mut ids: Vec<VolumeId> = volumes.iter().map(|volume| volume.id.clone()).collect();
            let damaged = pool.quarantined();
            ids.extend(
                damaged
                    .iter()
                    .filter_map(|folder| VolumeId::parse(&folder.name).ok()),
            );
            ids.sort_unstable();
            let mut troubled = Vec::new();
            for id in ids {
                match problems(&pool, &id) {
                    Ok(found) if found.is_empty() => {}
                    Ok(found) => troubled.push((id, found)),
                    // Deleted meanwhile.
                    Err(failure) if failure.kind == Kind::NotFound => {}
                    Err(failure) => return Err(failure),
                }
            }
            Ok(troubled)
        })
        .await
    }

    /// Whether a volume is published on this node: mounted or bind-mounted, or held by another loop device.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Io`.
    pub async fn is_published(&self, id: &VolumeId) -> Result<bool, Failure> {
        let id = id.clone();
        self.short(move |node| published(&*node.pool()?, &id).map_err(crate::failure::of))
            .await
    }
}

fn published(pool: &Pool, id: &VolumeId) -> pool::Result<bool> {
    let image = pool.open_image(id, false)?;
    for device in loop_device::find(ImageKey::of(&image)?)? {
        if loop_device::usage(&device)? != Usage::None {
            return Ok(true);
        }
    }
    Ok(false)
}

fn problems(pool: &Pool, id: &VolumeId) -> Result<Vec<Problem>, Failure> {
    let record = match pool.volume(id) {
        Ok(record) => record,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            return Ok(vec![Problem::RecordDamaged(error.to_string())]);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(crate::failure::of(error)),
        Err(error) => return Ok(vec![Problem::Unreadable(error.to_string())]),
    };
    match pool.checked_image(&record, false) {
        Ok(_) => Ok(Vec::new()),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            Ok(vec![Problem::ImageDamaged(error.to_string())])
        }
        Err(error) => Ok(vec![Problem::Unreadable(error.to_string())]),
    }
}
