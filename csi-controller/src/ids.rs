//! From the caller's name to our id, which is safe as a file name and as an object name.
//!
//! A name that Kubernetes made (`pvc-<uid>`, `snapshot-<uid>`) stays recognisable: it is the id.
//! Any other name is hashed, so that no user string ever becomes a path. The same name always
//! gives the same id, which is what makes a repeated call find the first call's result.

/// The id of the volume of this name: the name itself if it is exactly `pvc-` and a lower-case
/// UUID, else `vol-` and 32 hexadecimal digits of the name's BLAKE3 hash.
#[must_use]
pub fn volume_id(name: &str) -> String {
    if is_prefixed_uuid(name, "pvc-") {
        name.to_owned()
    } else {
        hashed("vol-", name)
    }
}

/// The id of the snapshot of this name: the name itself if it is exactly `snapshot-` and a
/// lower-case UUID, else `snap-` and 32 hexadecimal digits of the name's BLAKE3 hash.
#[must_use]
pub fn snapshot_id(name: &str) -> String {
    if is_prefixed_uuid(name, "snapshot-") {
        name.to_owned()
    } else {
        hashed("snap-", name)
    }
}

/// Whether this has a form that [`volume_id`] makes. Any other string names no volume.
#[must_use]
pub fn is_volume_id(id: &str) -> bool {
    is_prefixed_uuid(id, "pvc-") || is_prefixed_hash(id, "vol-")
}

/// Whether this has a form that [`snapshot_id`] makes. Any other string names no snapshot.
#[must_use]
pub fn is_snapshot_id(id: &str) -> bool {
    is_prefixed_uuid(id, "snapshot-") || is_prefixed_hash(id, "snap-")
}

fn hashed(prefix: &str, name: &str) -> String {
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{prefix}{}", &hash.as_str()[..32])
}

fn is_prefixed_hash(id: &str, prefix: &str) -> bool {
    id.strip_prefix(prefix)
        .is_some_and(|hash| hash.len() == 32 && hash.bytes().all(is_lower_hex))
}

/// 8-4-4-4-12 lower-case hexadecimal digits; neither version nor variant matters.
fn is_prefixed_uuid(id: &str, prefix: &str) -> bool {
    let Some(uuid) = id.strip_prefix(prefix) else {
        return false;
    };
    uuid.len() == 36
        && uuid.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => is_lower_hex(byte),
        })
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::{is_snapshot_id, is_volume_id, snapshot_id, volume_id};

    const UUID: &str = "3f8b9c1e-0d2a-4c6b-9e57-0123456789ab";

    #[test]
    fn names_made_by_kubernetes_are_their_own_ids() {
        assert_eq!(volume_id(&format!("pvc-{UUID}")), format!("pvc-{UUID}"));
        assert_eq!(
            snapshot_id(&format!("snapshot-{UUID}")),
            format!("snapshot-{UUID}")
        );
    }

    #[test]
    fn every_other_name_is_hashed_to_a_fixed_form() {
        for name in [
            "a",
            "../../etc/passwd",
            "pvc-",
            "name with spaces\nand a newline",
            "\u{1F980}",
            &format!("pvc-{}", UUID.to_uppercase()),
            &format!("pvc-{UUID}/.."),
            &format!("pvc-{UUID}\n"),
            &format!("snapshot-{UUID}"),
            &"X".repeat(128),
        ] {
            let id = volume_id(name);
            assert!(id.starts_with("vol-") && id.len() == 36, "{name}: {id}");
            assert!(is_volume_id(&id));
        }
        assert!(snapshot_id(&format!("pvc-{UUID}")).starts_with("snap-"));
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(volume_id("a"), "vol-17762fddd969a453925d65717ac3eea2");
        assert_eq!(snapshot_id("a"), "snap-17762fddd969a453925d65717ac3eea2");
    }

    #[test]
    fn names_that_differ_have_ids_that_differ() {
        let names = ["a", "A", "a ", "b", ""];
        let ids: std::collections::BTreeSet<String> = names.iter().map(|n| volume_id(n)).collect();
        assert_eq!(ids.len(), names.len());
    }

    #[test]
    fn only_our_own_forms_are_ids() {
        for id in [
            "",
            "fake-vol-id-0123456789",
            "vol-",
            "vol-zz",
            "vol-../../../../etc/passwd",
            UUID,
        ] {
            assert!(!is_volume_id(id) && !is_snapshot_id(id), "{id}");
        }
        assert!(!is_volume_id(&format!("snapshot-{UUID}")));
        assert!(!is_snapshot_id(&format!("pvc-{UUID}")));
        assert!(!is_volume_id(&volume_id("a").to_uppercase()));
    }
}
