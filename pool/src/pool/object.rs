//! What volumes and snapshots have in common: a folder with a record and an image.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Bound;
use std::sync::Arc;

use uuid::Uuid;

use super::Pool;
use crate::durable::{self, Folder};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::fault::{Step, reached};
use crate::record::VolumeRecord;

/// A folder in `tmp/` that becomes an object by one rename, or nothing.
pub(super) struct Draft<'pool> {
    pool: &'pool Pool,
    name: String,
    image_name: &'static str,
    pub(super) folder: Folder,
    published: bool,
}

/// Where the steps of making an object appear are marked.
#[derive(Clone, Copy)]
pub(super) struct Published {
    pub(super) renamed: Step,
    pub(super) synced: Step,
}

impl<'pool> Draft<'pool> {
    /// Makes the folder. Its name is new each time: two drafts of one object never meet.
    pub(super) fn new(pool: &'pool Pool, id: &str, image_name: &'static str) -> Result<Self> {
        let name = format!("{id}.{}", Uuid::new_v4());
        let folder = pool.layout.tmp.make_folder(&name)?;
        Ok(Self {
            pool,
            name,
            image_name,
            folder,
            published: false,
        })
    }

    /// Makes the empty image.
    pub(super) fn make_image(&self) -> Result<File> {
        self.folder.make_file(self.image_name)
    }

    /// Renames the folder into `parent`, which is when the object begins to exist, and makes that durable.
    ///
    /// After an error behind the rename nobody knows whether the object will be there after a crash, so it is not
    /// answered for: the pool is opened again, which begins with a sync of the whole filesystem.
    pub(super) fn publish(&mut self, parent: &Folder, id: &str, steps: Published) -> Result<()> {
        durable::rename(&self.pool.layout.tmp, &self.name, parent, id)?;
        self.published = true;
        let synced = reached(steps.renamed)
            .and_then(|()| parent.sync())
            .and_then(|()| self.pool.layout.tmp.sync())
            .and_then(|()| reached(steps.synced));
        synced.map_err(|error| {
            self.pool.distrust();
            error.with_kind(ErrorKind::Uncertain)
        })
    }

    /// Lets the folder change places with the object `id` in `parent`. Not yet durable: sync both folders. What was there is
    /// then in `tmp/` under the draft's name, for [`Self::move_to`] or the next start to take away.
    pub(super) fn exchange(&mut self, parent: &Folder, id: &str) -> Result<()> {
        durable::exchange(&self.pool.layout.tmp, &self.name, parent, id)?;
        self.published = true;
        Ok(())
    }

    /// Renames what lies under the draft's name.
    pub(super) fn move_to(&self, parent: &Folder, name: &str) -> Result<()> {
        durable::rename(&self.pool.layout.tmp, &self.name, parent, name)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        let removed = remove_object(
            &self.pool.layout.tmp,
            &self.folder,
            &self.name,
            self.image_name,
        );
        if let Err(error) = removed {
            // Not lost: the next start sweeps tmp/.
            tracing::warn!(draft = self.name, %error, "an unfinished object stays until the next start");
        }
    }
}

/// Removes the files we know and then the folder; anything else in it makes that fail, and stays.
pub(super) fn remove_object(
    parent: &Folder,
    folder: &Folder,
    name: &str,
    image_name: &str,
) -> Result<()> {
    folder.remove_file(image_name)?;
    folder.remove_file(durable::temporary_record())?;
    folder.remove_file(durable::record_name())?;
    parent.remove_folder(name)
}

/// `NotFound` unless the folder of an object is there.
pub(super) fn exists(parent: &Folder, id: &str, what: &str) -> Result<()> {
    match parent.stat(id)? {
        Some(_) => Ok(()),
        None => Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no {what} {id}"),
        )),
    }
}

/// Opens an object's image.
pub(super) fn open_image(parent: &Folder, id: &str, image_name: &str, write: bool) -> Result<File> {
    let folder = parent.folder(id)?;
    folder.file(image_name, write).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::new(
            ErrorKind::Corrupt,
            format!(
                "the image {image_name} of {id} is missing though its record is there; it was removed behind our back and is never replaced by an empty one"
            ),
        ),
        _ => error.context(format!("open the image of {id}")),
    })
}

/// `Corrupt` unless a volume's image has the size that its record says; while it grows, one between.
pub(super) fn check_image_size(image: &File, record: &VolumeRecord) -> Result<()> {
    let found = image.metadata().during("look at an image")?.len();
    let (least, most) = (record.size_bytes, record.charge_bytes());
    if (least..=most).contains(&found) {
        return Ok(());
    }
    let expected = if least == most {
        least.to_string()
    } else {
        format!("{least} growing to {most}")
    };
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "the image of {} has {found} bytes, its record says {expected}: it was changed behind our back",
            record.id
        ),
    ))
}

/// One page of a map of records.
pub(super) fn page<K: Ord + Clone, V>(
    records: &BTreeMap<K, Arc<V>>,
    after: Option<&K>,
    limit: usize,
    wanted: impl Fn(&V) -> bool,
) -> (Vec<Arc<V>>, bool) {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut found = records
        .range((start, Bound::Unbounded))
        .map(|(_, record)| record)
        .filter(|record| wanted(record));
    let page: Vec<_> = found.by_ref().take(limit).cloned().collect();
    let more = found.next().is_some();
    (page, more)
}
