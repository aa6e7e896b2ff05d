//! How far copies are that take long enough for somebody to ask.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The copies that run, by the id of the object they make.
#[derive(Debug, Default)]
pub(super) struct Copies {
    percent: Mutex<HashMap<String, i32>>,
    /// How many wait for a volume that may be copied, by its id.
    wanted: Mutex<HashMap<String, usize>>,
}

/// Somebody wants a volume: no copy of it goes on as long as this lives.
#[derive(Debug)]
pub struct Wanted {
    node: super::LocalNode,
    volume: String,
}

/// A copy that runs; dropped when it is over.
#[derive(Debug)]
pub(super) struct Copying<'copies> {
    copies: &'copies Copies,
    id: String,
}

/// What an operation has to look out for: whether it is still wanted, and who asks how far it is.
#[derive(Debug)]
pub(super) struct Running<'node> {
    pub(super) node: &'node super::LocalNode,
    pub(super) copying: &'node Copying<'node>,
}

impl Running<'_> {
    /// Not while the node stops, nor on a pool that cannot be used: who opens it again waits for those who still have it open.
    pub(super) fn may_go_on(&self) -> bool {
        self.node.may_go_on() && self.node.0.pool.peek().is_some()
    }

    /// Whether somebody wants the volume more than a copy of it.
    pub(super) fn is_wanted(&self, volume: &str) -> bool {
        let wanted = &self.node.0.copying.wanted;
        let wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.contains_key(volume)
    }

    pub(super) fn at(&self, done: u64, total: u64) {
        self.copying.at(done, total);
    }
}

impl Wanted {
    pub(super) fn new(node: super::LocalNode, volume: &str) -> Self {
        {
            let wanted = &node.0.copying.wanted;
            let mut wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
            *wanted.entry(volume.to_owned()).or_default() += 1;
        }
        Self {
            node,
            volume: volume.to_owned(),
        }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let wanted = &self.node.0.copying.wanted;
        let mut wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = wanted.get_mut(&self.volume) {
            *count -= 1;
            if *count == 0 {
                wanted.remove(&self.volume);
            }
        }
    }
}

impl Copies {
    pub(super) fn begin(&self, id: &str) -> Copying<'_> {
        Copying {
            copies: self,
            id: id.to_owned(),
        }
    }

    pub(super) fn percent(&self, id: &str) -> Option<i32> {
        let running = self.percent.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(id).copied()
    }
}

impl Copying<'_> {
    /// `done` of `total` bytes are copied.
    pub(super) fn at(&self, done: u64, total: u64) {
        let percent = (u128::from(done) * 100).checked_div(u128::from(total));
        let percent = i32::try_from(percent.unwrap_or(100).min(100)).unwrap_or(100);
        let mut running = self
            .copies
            .percent
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        running.insert(self.id.clone(), percent);
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        let mut running = self
            .copies
            .percent
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::Copies;

    #[test]
    fn a_copy_is_seen_while_it_runs() {
        let copies = Copies::default();
        assert_eq!(copies.percent("a"), None);
        let copying = copies.begin("a");
        copying.at(1, 3);
        assert_eq!(copies.percent("a"), Some(33));
        copying.at(0, 0);
        assert_eq!(copies.percent("a"), Some(100));
        drop(copying);
        assert_eq!(copies.percent("a"), None);
    }
}
