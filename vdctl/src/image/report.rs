//! What `vdctl image check` says.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use pool::size::human;
use serde::Serialize;
use snapshot_engine::reader::{Facts, Refusal};

use super::second_opinion::Opinion;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Accepted,
    Refused,
}

/// Fields that do not apply are null. Names are never changed once released.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    file: String,
    pub(crate) verdict: Verdict,
    /// Why it is refused: one of the names in docs/images.md.
    reason: Option<&'static str>,
    message: Option<String>,
    /// Where in the file that was found, in bytes.
    offset: Option<u64>,
    /// The size of the disk.
    virtual_bytes: Option<u64>,
    /// How much of the disk has data.
    allocated_bytes: Option<u64>,
    /// The size of the file, holes included.
    file_bytes: Option<u64>,
    /// What the file takes on its filesystem.
    file_allocated_bytes: Option<u64>,
    format: Option<Format>,
    /// Null unless it was asked for and the image is accepted.
    pub(crate) second_opinion: Option<Opinion>,
}

#[derive(Debug, Serialize)]
struct Format {
    version: u32,
    cluster_bytes: u64,
    refcount_bits: u64,
    compression: &'static str,
    data_clusters: u64,
    compressed_clusters: u64,
    reserved_clusters: u64,
    leaked_clusters: u64,
}

impl Report {
    pub(crate) fn accepted(
        path: &Path,
        file: &File,
        facts: &Facts,
        second_opinion: Option<Opinion>,
    ) -> anyhow::Result<Self> {
        let metadata = file.metadata().context("look at the image")?;
        Ok(Self {
            file: path.display().to_string(),
            verdict: Verdict::Accepted,
            reason: None,
            message: None,
            offset: None,
            virtual_bytes: Some(facts.virtual_bytes),
            allocated_bytes: Some(facts.allocated_bytes()),
            file_bytes: Some(facts.file_bytes),
            file_allocated_bytes: Some(metadata.blocks() * 512),
            format: Some(Format {
                version: facts.version,
                cluster_bytes: facts.cluster_bytes,
                refcount_bits: u64::from(facts.refcount_bits),
                compression: facts.compression.name(),
                data_clusters: facts.data_clusters,
                compressed_clusters: facts.compressed_clusters,
                reserved_clusters: facts.reserved_clusters,
                leaked_clusters: facts.leaked_clusters,
            }),
            second_opinion,
        })
    }

    /// `file` is none where there was nothing that could be opened as an image.
    pub(crate) fn refused(path: &Path, file: Option<&File>, refusal: Refusal) -> Self {
        let metadata = file.and_then(|file| file.metadata().ok());
        Self {
            file: path.display().to_string(),
            verdict: Verdict::Refused,
            reason: Some(refusal.reason.name()),
            message: Some(refusal.text),
            offset: refusal.offset,
            virtual_bytes: refusal.virtual_bytes,
            allocated_bytes: None,
            file_bytes: metadata.as_ref().map(MetadataExt::size),
            file_allocated_bytes: metadata.map(|metadata| metadata.blocks() * 512),
            format: None,
            second_opinion: None,
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![self.first_line()];
        let size = |bytes: u64| format!("{} ({bytes} bytes)", human(bytes));
        if let Some(bytes) = self.virtual_bytes {
            let allocated = self
                .allocated_bytes
                .map_or_else(String::new, |bytes| format!(", {} with data", human(bytes)));
            lines.push(format!("disk            {}{allocated}", size(bytes)));
        }
        if let (Some(bytes), Some(taken)) = (self.file_bytes, self.file_allocated_bytes) {
            lines.push(format!(
                "file            {}, takes {}",
                size(bytes),
                human(taken)
            ));
        }
        if let Some(format) = &self.format {
            lines.push(format!(
                "format          qcow2 version {}, clusters of {}, counts of {} bits, compression {}",
                format.version,
                human(format.cluster_bytes),
                format.refcount_bits,
                format.compression
            ));
            lines.push(format!(
                "clusters        {} with data, {} compressed, {} kept for zeroes, {} leaked",
                format.data_clusters,
                format.compressed_clusters,
                format.reserved_clusters,
                format.leaked_clusters
            ));
        }
        if let Some(opinion) = &self.second_opinion {
            lines.push(format!("second opinion  {opinion}"));
        }
        lines.join("\n") + "\n"
    }

    fn first_line(&self) -> String {
        let (Some(reason), Some(message)) = (self.reason, &self.message) else {
            return format!("accepted        {}", self.file);
        };
        let place = self
            .offset
            .map_or_else(String::new, |offset| format!(", found at byte {offset}"));
        format!(
            "REFUSED         {}\nwhy             {message} ({reason}{place})",
            self.file
        )
    }
}
