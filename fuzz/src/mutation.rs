//! Changes to images that know what they change. The same number gives the same change.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::anatomy::{Anatomy, FIELDS};

/// The name of a file that no reader may ever open, put into images as if it were theirs.
pub const CANARY: &str = "/vd-canary/must-never-be-opened";

/// What is written where, in this order, and the size that the file is given in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Places and bytes.
    pub patches: Vec<(u64, Vec<u8>)>,
    /// A new size of the file.
    pub file_bytes: Option<u64>,
    /// What was done, for a person.
    pub what: Vec<&'static str>,
}

impl Change {
    /// Change number `number` of an image.
    #[must_use]
    pub fn number(number: u64, anatomy: &Anatomy, original: &File) -> Self {
        let mut maker = Maker {
            random: StdRng::seed_from_u64(number),
            anatomy,
            original,
            change: Self::default(),
        };
        let times = match maker.random.random_range(0..10) {
            0..6 => 1,
            6..9 => 2,
            _ => 5,
        };
        for _each in 0..times {
            maker.one();
        }
        maker.change
    }

    /// Changes the first `length` of some bytes, and returns how many they are then. What does not fit is left out.
    #[must_use]
    pub fn apply_to(&self, bytes: &mut [u8], length: usize) -> usize {
        let mut length = length.min(bytes.len());
        for (offset, patch) in &self.patches {
            let start = usize::try_from(*offset).unwrap_or(usize::MAX);
            let place = start.checked_add(patch.len()).map(|end| start..end);
            if let Some(part) = place.and_then(|place| bytes.get_mut(place)) {
                part.copy_from_slice(patch);
                length = length.max(start + patch.len());
            }
        }
        match self.file_bytes.map(usize::try_from) {
            Some(Ok(size)) if size < bytes.len() => size,
            _ => length,
        }
    }

    /// Changes `file`. Returns what makes it the original again.
    #[must_use]
    pub fn apply(&self, file: &File) -> Undo {
        let file_bytes = file.metadata().expect("look at an image").len();
        let mut old = Vec::new();
        for (offset, bytes) in &self.patches {
            old.push(bytes_at(file, *offset, bytes.len() as u64));
            file.write_all_at(bytes, *offset).expect("change an image");
        }
        if let Some(size) = self.file_bytes {
            let cut = file_bytes.saturating_sub(size);
            old.push(bytes_at(file, size, cut));
            file.set_len(size).expect("size an image");
        }
        Undo { old, file_bytes }
    }
}

/// What a [`Change`] replaced.
#[derive(Debug)]
pub struct Undo {
    /// In the order in which it was replaced.
    old: Vec<(u64, Vec<u8>)>,
    file_bytes: u64,
}

impl Undo {
    /// Makes `file` what it was.
    pub fn apply(self, file: &File) {
        for (offset, bytes) in self.old.into_iter().rev() {
            file.write_all_at(&bytes, offset).expect("restore an image");
        }
        file.set_len(self.file_bytes).expect("size an image");
    }
}

/// Up to `length` bytes from `offset`, with their place: less at the end of the file.
fn bytes_at(file: &File, offset: u64, length: u64) -> (u64, Vec<u8>) {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = file.read_at(&mut bytes, offset).expect("read an image");
    bytes.truncate(read);
    (offset, bytes)
}

struct Maker<'a> {
    random: StdRng,
    anatomy: &'a Anatomy,
    original: &'a File,
    change: Change,
}

impl Maker<'_> {
    fn one(&mut self) {
        match self.random.random_range(0..100) {
            0..18 => self.header_field(),
            18..24 => self.extension(),
            24..28 => self.backing_file(),
            28..36 => self.l1_entry(),
            36..60 => self.l2_entry(),
            60..66 => self.harmless(),
            66..72 => self.refcount_table(),
            72..80 => self.refcount(),
            80..88 => self.stream(),
            88..92 => self.data(),
            92..96 => self.size(),
            _ => self.anywhere(),
        }
    }

    fn write(&mut self, what: &'static str, offset: u64, bytes: &[u8]) {
        self.change.what.push(what);
        self.change.patches.push((offset, bytes.to_vec()));
    }

    fn pick(&mut self, from: &[u64]) -> Option<u64> {
        if from.is_empty() {
            return None;
        }
        Some(from[self.random.random_range(0..from.len())])
    }

    fn original(&self, offset: u64, width: usize) -> u64 {
        let mut bytes = [0; 8];
        let part = &mut bytes[8 - width..];
        let _read = self.original.read_at(part, offset).unwrap_or(0);
        u64::from_be_bytes(bytes)
    }

    /// A number that has meant trouble before, given what stood there.
    fn number(&mut self, old: u64) -> u64 {
        let (file, cluster) = (self.anatomy.file_bytes, self.anatomy.cluster_bytes);
        match self.random.random_range(0..14) {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => old.wrapping_add(1),
            4 => old.wrapping_sub(1),
            5 => old ^ (1 << self.random.random_range(0..64)),
            6 => 1 << self.random.random_range(0..64),
            7 => file,
            8 => file / cluster * cluster,
            9 => old.wrapping_add(cluster),
            10 => old.wrapping_mul(2),
            11 => self.random.random_range(0..=file),
            12 => self.random.random_range(0..=file) / cluster * cluster,
            _ => self.random.random(),
        }
    }

    fn header_field(&mut self) {
        let (offset, width) = FIELDS[self.random.random_range(0..FIELDS.len())];
        let old = self.original(offset, width);
        let bytes = self.number(old).to_be_bytes();
        self.write("header field", offset, &bytes[8 - width..]);
    }

    fn extension(&mut self) {
        let kinds = [
            0xe279_2aca,
            0x6803_f857,
            0x2385_2875,
            0x0537_be77,
            0x4441_5441,
            self.random.random::<u32>(),
        ];
        let kind: u32 = kinds[self.random.random_range(0..kinds.len())];
        let length = match self.random.random_range(0..4) {
            0 => u32::MAX,
            1 => 24,
            2 => self.random.random_range(0..600),
            _ => u32::try_from(CANARY.len()).unwrap_or(0),
        };
        let bytes = [
            &kind.to_be_bytes()[..],
            &length.to_be_bytes(),
            CANARY.as_bytes(),
        ];
        self.write("header extension", self.anatomy.extensions, &bytes.concat());
    }

    fn backing_file(&mut self) {
        let name = self.anatomy.extensions + 64;
        self.write("name of a backing file", name, CANARY.as_bytes());
        self.write("backing file", 8, &name.to_be_bytes());
        let length = u32::try_from(CANARY.len()).unwrap_or(0);
        self.write("length of its name", 16, &length.to_be_bytes());
    }

    fn l1_entry(&mut self) {
        let l1 = &self.anatomy.l1;
        if let Some(place) = self.pick(l1) {
            let old = self.original(place, 8);
            let new = match self.random.random_range(0..3) {
                0 => self.pick(l1).map_or(0, |other| self.original(other, 8)),
                1 => self.number(old & !(1 << 63)) | 1 << 63,
                _ => self.number(old),
            };
            self.write("L1 entry", place, &new.to_be_bytes());
        }
    }

    fn l2_entry(&mut self) {
        let anatomy = self.anatomy;
        let places = if self.random.random_bool(0.2) {
            &anatomy.l2_empty
        } else {
            &anatomy.l2
        };
        let Some(place) = self.pick(places) else {
            return;
        };
        let old = self.original(place, 8);
        let flags = old & (3 << 62);
        let new = match self.random.random_range(0..7) {
            0 => self
                .pick(&anatomy.l2)
                .map_or(0, |other| self.original(other, 8)),
            1 => self.number(old & !(3 << 62)) & !(3 << 62) | flags,
            2 => old ^ 1 << self.random.random_range(0..64),
            3 => self.pick(&anatomy.refcount_blocks).unwrap_or(0) | 1 << 63,
            // A compressed cluster that begins or ends elsewhere.
            4 => old.wrapping_add(self.random.random_range(0..8)),
            5 => old.wrapping_add(1 << self.random.random_range(40..62)),
            _ => self.number(old),
        };
        self.write("L2 entry", place, &new.to_be_bytes());
    }

    /// What leaves an image as good as it was, though another one.
    fn harmless(&mut self) {
        let anatomy = self.anatomy;
        let (Some(one), Some(other)) = (self.pick(&anatomy.l2), self.pick(&anatomy.l2)) else {
            return;
        };
        let (first, second) = (self.original(one, 8), self.original(other, 8));
        match self.random.random_range(0..3) {
            0 => {
                self.write("exchanged L2 entry", one, &second.to_be_bytes());
                self.write("exchanged L2 entry", other, &first.to_be_bytes());
            }
            1 => self.write("L2 entry without its cluster", one, &[0; 8]),
            _ => self.write("L2 entry of zeroes", one, &(first | 1).to_be_bytes()),
        }
    }

    fn refcount_table(&mut self) {
        if let Some(place) = self.pick(&self.anatomy.refcount_table) {
            let old = self.original(place, 8);
            let new = match self.random.random_range(0..2) {
                0 => self.pick(&self.anatomy.data).unwrap_or(0),
                _ => self.number(old),
            };
            self.write("refcount table entry", place, &new.to_be_bytes());
        }
    }

    fn refcount(&mut self) {
        if let Some(block) = self.pick(&self.anatomy.refcount_blocks) {
            // Near its beginning, where the counts of a small image are.
            let place = block.wrapping_add(self.random.random_range(0..64));
            let old = self.original(place, 1).to_be_bytes()[7];
            let new = match self.random.random_range(0..3) {
                0 => old.wrapping_add(1),
                1 => old.wrapping_sub(1),
                _ => self.random.random(),
            };
            self.write("refcount", place, &[new]);
        }
    }

    fn stream(&mut self) {
        if let Some(start) = self.pick(&self.anatomy.compressed) {
            let place = start.wrapping_add(self.random.random_range(0..40));
            let byte = self.random.random();
            self.write("compressed data", place, &[byte]);
        }
    }

    fn data(&mut self) {
        if let Some(start) = self.pick(&self.anatomy.data) {
            let inside = self.random.random_range(0..self.anatomy.cluster_bytes);
            let place = start.wrapping_add(inside);
            let byte = self.random.random();
            self.write("data", place, &[byte]);
        }
    }

    fn size(&mut self) {
        let file = self.anatomy.file_bytes.max(1);
        let size = match self.random.random_range(0..4) {
            0 => self.random.random_range(0..file),
            1 => file - self.random.random_range(0..1024).min(file),
            2 => file + self.random.random_range(0..1 << 20),
            // All hole: it costs nothing and claims much.
            _ => 1 << self.random.random_range(30..43),
        };
        self.change.what.push("size of the file");
        self.change.file_bytes = Some(size);
    }

    fn anywhere(&mut self) {
        let place = self.random.random_range(0..self.anatomy.file_bytes.max(1));
        let bytes: [u8; 8] = self.random.random();
        let length = self.random.random_range(1..=8);
        self.write("somewhere", place, &bytes[..length]);
    }
}
