//! The header extensions: what stands between the header's fields and the end of its cluster.

use super::features;
use super::refusal::{Reason, Refusal};

const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const BITMAPS: u32 = 0x2385_2875;
const ENCRYPTION: u32 = 0x0537_be77;
const DATA_FILE: u32 = 0x4441_5441;
/// Type and length in front of the data of each extension.
const PREFIX: u64 = 8;

/// Walks the extensions in the header cluster `cluster` from byte `start`. Those that would change what the disk's bytes
/// are, or where, are refused; all others (the names of features, and any that is not known) mean nothing to a reader.
pub(crate) fn accept(cluster: &[u8], start: u64) -> Result<(), Refusal> {
    let end = cluster.len() as u64;
    let mut at = start;
    while at < end {
        let Some((kind, length)) = prefix(cluster, at) else {
            let text = "a header extension is cut off by the end of the header cluster";
            return Err(Refusal::at(Reason::Extension, at, text));
        };
        let room = end - at - PREFIX;
        if u64::from(length) > room {
            let text = format!(
                "a header extension of {length} bytes has only {room} left in the header cluster"
            );
            return Err(Refusal::at(Reason::Extension, at, text));
        }
        match kind {
            END => return Ok(()),
            // The format of nothing: left by the backing file that was taken away.
            BACKING_FORMAT if length == 0 => at += PREFIX,
            BACKING_FORMAT => {
                let text = "the image names the format of a backing file: flatten it with `qemu-img convert`";
                return Err(Refusal::at(Reason::BackingFile, at, text));
            }
            ENCRYPTION => {
                let text = "the image is encrypted: decrypt it with `qemu-img convert`";
                return Err(Refusal::at(Reason::Encryption, at, text));
            }
            DATA_FILE => return Err(features::data_file(at)),
            BITMAPS => return Err(features::bitmaps(at)),
            _ => at += PREFIX + u64::from(length).next_multiple_of(8),
        }
    }
    Ok(())
}

fn prefix(cluster: &[u8], at: u64) -> Option<(u32, u32)> {
    let prefix: &[u8; 8] = cluster.get(usize::try_from(at).ok()?..)?.first_chunk()?;
    let [k0, k1, k2, k3, l0, l1, l2, l3] = *prefix;
    Some((
        u32::from_be_bytes([k0, k1, k2, k3]),
        u32::from_be_bytes([l0, l1, l2, l3]),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cluster(extensions: &[(u32, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 104];
        for (kind, data) in extensions {
            bytes.extend(kind.to_be_bytes());
            bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        assert!(bytes.len() <= 512);
        bytes.resize(512, 0);
        bytes
    }

    #[test]
    fn names_of_features_and_unknown_extensions_mean_nothing() {
        let names: &[u8] = &[0; 96];
        assert_eq!(accept(&cluster(&[]), 104), Ok(()));
        assert_eq!(accept(&cluster(&[(0x6803_f857, names)]), 104), Ok(()));
        assert_eq!(
            accept(&cluster(&[(1, b"x"), (2, b"yyyyyyyyy")]), 104),
            Ok(())
        );
    }

    #[test]
    fn format_of_no_backing_file_means_nothing_and_what_follows_it_counts() {
        assert_eq!(accept(&cluster(&[(BACKING_FORMAT, b"")]), 104), Ok(()));
        let followed = cluster(&[(BACKING_FORMAT, b""), (DATA_FILE, b"x")]);
        assert_eq!(accept(&followed, 104).unwrap_err().reason, Reason::DataFile);
    }

    #[test]
    fn extensions_that_lead_elsewhere_are_refused_wherever_they_stand() {
        let cases: [(u32, &[u8], Reason); 4] = [
            (BACKING_FORMAT, b"raw", Reason::BackingFile),
            (DATA_FILE, b"/etc/shadow", Reason::DataFile),
            (ENCRYPTION, &[0; 16], Reason::Encryption),
            (BITMAPS, &[0; 24], Reason::Bitmaps),
        ];
        for (kind, data, reason) in cases {
            let alone = accept(&cluster(&[(kind, data)]), 104).unwrap_err();
            assert_eq!((alone.reason, alone.offset), (reason, Some(104)));
            let second = accept(&cluster(&[(7, b"seven"), (kind, data)]), 104).unwrap_err();
            assert_eq!((second.reason, second.offset), (reason, Some(120)));
        }
    }

    #[test]
    fn extension_that_leaves_the_header_cluster_is_refused() {
        let mut bytes = cluster(&[(1, b"x")]);
        bytes[108..112].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(accept(&bytes, 104).unwrap_err().reason, Reason::Extension);
        let full = vec![1; 512 - 104 - 8];
        assert_eq!(accept(&cluster(&[(1, &full)]), 104), Ok(()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), start in 0..600u64) {
            let _either = accept(&bytes, start);
        }
    }
}
