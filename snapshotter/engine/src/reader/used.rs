//! Which clusters of a file are in use.

use std::collections::BTreeMap;

/// Clusters that share one allocation of 512 bytes.
const GROUP: u64 = 4096;
const WORDS: usize = 64;

/// A set of cluster numbers: one bit each, in groups that exist once one of theirs is in it. A group is only made for a
/// cluster that the image itself counts, so the set never outgrows the counts that are really in the file.
#[derive(Debug, Default)]
pub(crate) struct Used {
    places: BTreeMap<u64, usize>,
    groups: Vec<[u64; WORDS]>,
    /// The group that was asked for last, and its place.
    last: Option<(u64, usize)>,
    count: u64,
}

impl Used {
    /// Adds a cluster. False if it was there already.
    pub(crate) fn insert(&mut self, cluster: u64) -> bool {
        let group = cluster / GROUP;
        let place = match self.last {
            Some((last, place)) if last == group => place,
            _ => *self.places.entry(group).or_insert_with(|| {
                self.groups.push([0; WORDS]);
                self.groups.len() - 1
            }),
        };
        self.last = Some((group, place));
        let (word, bit) = position(cluster);
        let word = &mut self.groups[place][word];
        let new = *word & bit == 0;
        *word |= bit;
        self.count += u64::from(new);
        new
    }

    pub(crate) fn contains(&self, cluster: u64) -> bool {
        let (word, bit) = position(cluster);
        self.places
            .get(&(cluster / GROUP))
            .is_some_and(|place| self.groups[*place][word] & bit != 0)
    }

    /// How many clusters are in it.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

/// The word in its group that a cluster's bit is in, and the bit.
fn position(cluster: u64) -> (usize, u64) {
    let word = usize::try_from(cluster / 64).unwrap_or(0) % WORDS;
    (word, 1 << (cluster % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_set_holds_what_was_put_in(clusters in proptest::collection::vec(
            prop_oneof![0..200u64, 4000..4200u64, any::<u64>()], 0..200
        )) {
            let (mut used, mut model) = (Used::default(), BTreeSet::new());
            for cluster in &clusters {
                prop_assert_eq!(used.insert(*cluster), model.insert(*cluster));
            }
            prop_assert_eq!(used.count(), model.len() as u64);
            for cluster in clusters {
                prop_assert!(used.contains(cluster));
                prop_assert_eq!(used.contains(cluster ^ 1), model.contains(&(cluster ^ 1)));
            }
        }
    }
}
