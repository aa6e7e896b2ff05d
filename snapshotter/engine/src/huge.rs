//! Memory in huge pages, for reads and writes past the page cache.
//!
//! A disk takes as many pieces of memory in one request as it says (`max_segments`, 128 for a loop device). Of pages of 4 KiB, which lie
//! anywhere in the machine's memory, that is half a MiB; of a huge page all that it takes. And the kernel has one page to hold for
//! each request instead of hundreds.

use std::ops::Range;

use memmap2::{Advice, MmapMut};
use pool::{Context, Result};

/// What a huge page has on most machines. Where they are larger there are none here, and all is as with usual ones.
const PAGE_BYTES: usize = 2 << 20;

/// See the module. It begins with a huge page.
#[derive(Debug)]
pub(crate) struct HugeMemory {
    map: MmapMut,
    range: Range<usize>,
}

impl HugeMemory {
    /// `bytes` of zeroes. As much is in memory as is used, in whole huge pages.
    ///
    /// # Errors
    /// `Io` when there is no memory.
    pub(crate) fn new(bytes: usize) -> Result<Self> {
        let pages = bytes.next_multiple_of(PAGE_BYTES);
        // What is before the first whole page, and behind the last, is never touched.
        let map = MmapMut::map_anon(pages + PAGE_BYTES).during("get memory for a copy")?;
        if let Err(error) = map.advise(Advice::HugePage) {
            tracing::debug!(%error, "copies use small pages");
        }
        let start = map.as_ptr().align_offset(PAGE_BYTES);
        Ok(Self {
            map,
            range: start..start + bytes,
        })
    }

    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.map.get_mut(self.range.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_as_much_as_was_asked_for_and_begins_with_a_huge_page() {
        for bytes in [0, 1, PAGE_BYTES, 2 * PAGE_BYTES + 4096] {
            let mut memory = HugeMemory::new(bytes).unwrap();
            assert_eq!(memory.bytes().len(), bytes);
            assert_eq!(memory.bytes().as_ptr() as usize % PAGE_BYTES, 0);
            assert!(memory.bytes().iter().all(|byte| *byte == 0));
        }
    }
}
