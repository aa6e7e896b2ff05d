//! Records of a pool as `docs/on-disk-format.md` specifies them, read and written without the pool's own code.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A volume's or snapshot's record, or a pool's marker.
#[derive(Clone, Debug)]
pub struct Record {
    magic: String,
    version: u32,
    body: Value,
}

impl Record {
    /// Reads the file at `path`.
    #[track_caller]
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        let (header, json) = text.split_once('\n').expect("a record has a header line");
        let mut words = header.split(' ');
        let magic = words.next().expect("a header has a magic").to_owned();
        let version = words.next().expect("a header has a version");
        Self {
            magic,
            version: version.parse().expect("a version is a number"),
            body: serde_json::from_str(json).expect("a record's body is JSON"),
        }
    }

    /// A field that is a text.
    #[track_caller]
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().expect("the field is a text")
    }

    /// A field that is a number.
    #[track_caller]
    #[must_use]
    pub fn number(&self, field: &str) -> u64 {
        self.body[field].as_u64().expect("the field is a number")
    }

    /// The same with another value in `field`.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.body[field] = value.into();
        self
    }

    /// The same as a program of another format version would write it: with a right checksum.
    #[must_use]
    pub fn of_version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// The bytes of the record, with its checksum.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let head = format!("{} {}", self.magic, self.version);
        let digest = blake3::hash(format!("{head}\n{}", self.body).as_bytes());
        format!("{head} {}\n{}\n", digest.to_hex(), self.body).into_bytes()
    }
}

/// Where the record of a volume lies.
#[must_use]
pub fn of_volume(pool: &Path, id: &str) -> PathBuf {
    pool.join("volumes").join(id).join("record")
}

/// Where the record of a snapshot lies.
#[must_use]
pub fn of_snapshot(pool: &Path, id: &str) -> PathBuf {
    pool.join("snapshots").join(id).join("record")
}

/// Where the marker of a pool lies.
#[must_use]
pub fn marker(pool: &Path) -> PathBuf {
    pool.join(".vd-pool")
}

/// Puts other bytes into a file that exists, as a failing disk does: the file stays the same one.
#[track_caller]
pub fn overwrite(path: &Path, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    file.set_len(bytes.len() as u64).expect("set the length");
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).expect("overwrite a file");
}
