//! The bytes of a record: one line of header with version and checksum, one line of JSON.
//!
//! ```text
//! vd-volume 1 <64 hex digits: BLAKE3 of everything but this digest>\n
//! {"id":"pvc-…",…}\n
//! ```
//! Text, so that a person at a broken node can read it with `cat`; strict, so that no flipped bit goes unseen.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};

/// The version written into every record and marker that has no field which came later. Each change of a field makes a new
/// version, and a record is of the oldest one that knows all its fields: an older program still reads what it understands.
pub const FORMAT_VERSION: u32 = 1;

/// What a record speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The pool's own marker.
    Pool,
    /// A volume.
    Volume,
    /// A snapshot.
    Snapshot,
}

impl Kind {
    fn magic(self) -> &'static str {
        match self {
            Self::Pool => "vd-pool",
            Self::Volume => "vd-volume",
            Self::Snapshot => "vd-snapshot",
        }
    }

    /// The newest version that this program knows.
    fn newest(self) -> u32 {
        match self {
            Self::Pool | Self::Volume => FORMAT_VERSION,
            Self::Snapshot => 2,
        }
    }
}

/// The bytes of a record.
///
/// # Errors
/// `Internal` when `body` cannot be written as JSON, which no record of ours does.
pub fn encode<T: Serialize>(kind: Kind, body: &T) -> Result<Vec<u8>> {
    encode_as(kind, FORMAT_VERSION, body)
}

/// The bytes of a record of this version.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_as<T: Serialize>(kind: Kind, version: u32, body: &T) -> Result<Vec<u8>> {
    let json = serde_json::to_string(body).map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            format!("write a record as JSON: {error}"),
        )
    })?;
    let digest = digest(kind.magic(), &version.to_string(), &json);
    Ok(format!("{} {version} {digest}\n{json}\n", kind.magic()).into_bytes())
}

/// Reads a record.
///
/// # Errors
/// `Corrupt` for anything but the exact bytes that [`encode`] made, and for a version that this program does not know.
pub fn decode<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| corrupt(format!("not UTF-8: {error}")))?;
    let (header, rest) = text
        .split_once('\n')
        .ok_or_else(|| corrupt("no header line"))?;
    let json = rest
        .strip_suffix('\n')
        .ok_or_else(|| corrupt("cut short: no last newline"))?;
    let [magic, version, stored] =
        fields(header).ok_or_else(|| corrupt("header is not three words"))?;
    if magic != kind.magic() {
        return Err(corrupt(format!(
            "starts with {magic:?} instead of {:?}",
            kind.magic()
        )));
    }
    // The version comes before the checksum: a newer program may compute that differently.
    let newest = kind.newest();
    if !(FORMAT_VERSION..=newest).any(|known| version == known.to_string()) {
        return Err(corrupt(format!(
            "format version {version:?} is not known to this program, which knows {newest} at most: it was written by a newer one, or is damaged"
        )));
    }
    let computed = digest(magic, version, json);
    if computed != stored {
        return Err(corrupt(
            "checksum does not match: the bytes changed after they were written",
        ));
    }
    serde_json::from_str(json).map_err(|error| corrupt(format!("JSON: {error}")))
}

fn fields(header: &str) -> Option<[&str; 3]> {
    let mut words = header.split(' ');
    let found = [words.next()?, words.next()?, words.next()?];
    words.next().is_none().then_some(found)
}

fn digest(magic: &str, version: &str, json: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(magic.as_bytes());
    hasher.update(b" ");
    hasher.update(version.as_bytes());
    hasher.update(b"\n");
    hasher.update(json.as_bytes());
    hasher.finalize().to_hex().to_string()
}

fn corrupt(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_decodes_to_the_same() {
        let bytes = encode(Kind::Volume, &vec![1, 2, 3]).unwrap();
        assert_eq!(decode::<Vec<i32>>(Kind::Volume, &bytes).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let bytes = encode(Kind::Volume, &vec!["abc", "def"]).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let error = decode::<Vec<String>>(Kind::Volume, &damaged).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn every_cut_is_found() {
        let bytes = encode(Kind::Volume, &vec!["abc"]).unwrap();
        for length in 0..bytes.len() {
            assert!(
                decode::<Vec<String>>(Kind::Volume, &bytes[..length]).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let text = String::from_utf8(encode(Kind::Pool, &0).unwrap()).unwrap();
        let newer = text.replacen("vd-pool 1 ", "vd-pool 2 ", 1);
        let error = decode::<i32>(Kind::Pool, newer.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("version \"2\""), "{error}");
    }

    #[test]
    fn each_kind_has_its_own_newest_version() {
        let of = |kind, version| encode_as(kind, version, &0).unwrap();
        assert_eq!(
            decode::<i32>(Kind::Snapshot, &of(Kind::Snapshot, 2)).unwrap(),
            0
        );
        for (kind, version) in [
            (Kind::Snapshot, 0),
            (Kind::Snapshot, 3),
            (Kind::Volume, 2),
            (Kind::Pool, 2),
        ] {
            assert!(decode::<i32>(kind, &of(kind, version)).is_err());
        }
    }

    #[test]
    fn a_record_of_another_kind_is_refused() {
        let bytes = encode(Kind::Snapshot, &0).unwrap();
        assert!(decode::<i32>(Kind::Volume, &bytes).is_err());
    }
}
