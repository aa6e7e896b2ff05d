//! Names of volumes and snapshots that are safe to use as file names.
//!
//! The orchestrator chooses a name of up to 128 characters of any kind. We keep it when it is one of the two forms that
//! the stock sidecars make (`pvc-<uuid>`, `snapshot-<uuid>`), because people recognise it, and hash it otherwise. So an
//! id has one of two exact forms, no string of a user ever becomes a path, and the same name always gives the same id.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $kept:literal, $hashed:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Reads an id that we gave out before.
            ///
            /// # Errors
            /// `NotFound` for any other string: what we never named does not exist.
            pub fn parse(text: &str) -> Result<Self> {
                let known = text.strip_prefix($kept).is_some_and(is_uuid)
                    || text.strip_prefix($hashed).is_some_and(is_hash);
                if known {
                    Ok(Self(text.to_owned()))
                } else {
                    let shown: String = text.chars().take(64).collect();
                    Err(Error::new(
                        ErrorKind::NotFound,
                        format!(concat!("there is no ", $what, " {:?}: no id of ours looks like that"), shown),
                    ))
                }
            }

            /// The id for a name that the orchestrator chose.
            #[must_use]
            pub fn from_name(name: &str) -> Self {
                if name.strip_prefix($kept).is_some_and(is_uuid) {
                    return Self(name.to_owned());
                }
                let digest = blake3::hash(name.as_bytes()).to_hex();
                Self(format!("{}{}", $hashed, &digest[..HASH_DIGITS]))
            }

            /// The id as text; also its folder's name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

id_type!(
    /// The id of a volume: `pvc-<uuid>` or `vol-<32 hex digits>`.
    VolumeId,
    "pvc-",
    "vol-",
    "volume"
);
id_type!(
    /// The id of a snapshot: `snapshot-<uuid>` or `snap-<32 hex digits>`.
    SnapshotId,
    "snapshot-",
    "snap-",
    "snapshot"
);

/// 128 bits of the digest: no two names will ever meet.
const HASH_DIGITS: usize = 32;

fn is_hash(text: &str) -> bool {
    text.len() == HASH_DIGITS && text.bytes().all(is_lower_hex)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => is_lower_hex(byte),
        })
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "0b2bd8e1-6a3f-4a4a-9a53-2f1f1c2d3e4f";

    #[test]
    fn names_of_the_stock_sidecars_are_kept() {
        assert_eq!(
            VolumeId::from_name(&format!("pvc-{UUID}")).as_str(),
            format!("pvc-{UUID}")
        );
        let name = format!("snapshot-{UUID}");
        assert_eq!(SnapshotId::from_name(&name).as_str(), name);
    }

    #[test]
    fn any_other_name_becomes_a_hash() {
        for name in [
            "",
            "../../etc/passwd",
            "pvc-x",
            "a\0b",
            "PVC-0B2BD8E1",
            &"é".repeat(64),
        ] {
            let id = VolumeId::from_name(name);
            assert!(
                id.as_str().starts_with("vol-") && id.as_str().len() == 36,
                "{id}"
            );
            assert_eq!(VolumeId::parse(id.as_str()).unwrap(), id);
        }
    }

    #[test]
    fn what_we_never_named_does_not_exist() {
        let upper = format!("pvc-{}", UUID.to_uppercase());
        for text in [
            "",
            ".",
            "..",
            "../x",
            "vol-",
            "vol-../../../../../../../../../../..",
            &upper,
        ] {
            assert_eq!(
                VolumeId::parse(text).unwrap_err().kind(),
                ErrorKind::NotFound,
                "{text}"
            );
        }
    }

    #[test]
    fn ids_of_volumes_and_snapshots_are_never_mixed_up() {
        let snapshot = SnapshotId::from_name("a");
        assert!(VolumeId::parse(snapshot.as_str()).is_err());
        assert!(SnapshotId::parse(VolumeId::from_name("a").as_str()).is_err());
    }
}
