//! How far copies are that take long enough for somebody to ask.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For so long a speed that was measured says something about the disk: then somebody else may use it, or nobody.
const FRESH: Duration = Duration::from_secs(3600);
/// A copy that was over sooner says little about the disk.
const TELLING: Duration = Duration::from_millis(500);

/// The copies that run, by the id of the object they make.
#[derive(Debug, Default)]
pub(super) struct Copies {
    percent: Mutex<HashMap<String, i32>>,
    /// How many wait for a volume that may be copied, by its id.
    wanted: Mutex<HashMap<String, usize>>,
    /// How many bytes the last copy made in a second, and when that was.
    speed: Mutex<Option<(u64, Instant)>>,
}

/// How fast a copy gets on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    began: Instant,
    done: u64,
    total: u64,
}

impl Pace {
    /// A copy that begins now.
    pub(super) fn begin() -> Self {
        Self {
            began: Instant::now(),
            done: 0,
            total: 0,
        }
    }

    /// `done` of `total` bytes are copied.
    pub(super) fn at(&mut self, done: u64, total: u64) {
        (self.done, self.total) = (done, total);
    }

    /// Bytes in a second; nothing, while that cannot be told.
    fn speed(&self, now: Instant) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.began);
        if elapsed < TELLING {
            return None;
        }
        let per_second = u128::from(self.done) * 1000 / elapsed.as_millis().max(1);
        u64::try_from(per_second).ok()
    }

    /// Whether it can be over before `deadline`, as far as can be told.
    pub(super) fn arrives(&self, deadline: Instant, now: Instant) -> bool {
        self.speed(now).is_none_or(|speed| {
            let left = deadline.saturating_duration_since(now);
            time_for(self.total.saturating_sub(self.done), speed) <= left
        })
    }
}

/// How long `bytes` take at `speed` bytes in a second.
pub(super) fn time_for(bytes: u64, speed: u64) -> Duration {
    let ms = u128::from(bytes) * 1000 / u128::from(speed.max(1));
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
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

    /// Remembers how fast a copy was.
    pub(super) fn was(&self, pace: Pace) {
        let now = Instant::now();
        if let Some(speed) = pace.speed(now) {
            *self.speed() = Some((speed, now));
        }
    }

    /// How many bytes a copy makes in a second, if one was made lately.
    pub(super) fn usual_speed(&self) -> Option<u64> {
        let known = *self.speed();
        known
            .filter(|(_, at)| at.elapsed() < FRESH)
            .map(|(speed, _)| speed)
    }

    fn speed(&self) -> std::sync::MutexGuard<'_, Option<(u64, Instant)>> {
        let speed = &self.node.0.copying.speed;
        speed.lock().unwrap_or_else(PoisonError::into_inner)
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
    use super::*;

    #[test]
    fn a_copy_that_cannot_arrive_in_time_is_known_after_half_a_second() {
        let began = Instant::now();
        let after = |ms: u64| began + Duration::from_millis(ms);
        let pace = Pace {
            began,
            done: 100,
            total: 1000,
        };
        let deadline = after(4500);
        // 1000 in 5 s at this speed, but it is too early to say.
        assert!(pace.arrives(deadline, after(499)));
        assert!(!pace.arrives(deadline, after(501)));
        let faster = Pace { done: 120, ..pace };
        assert!(faster.arrives(deadline, after(500)));
        let done = Pace { done: 1000, ..pace };
        assert!(done.arrives(deadline, after(4499)) && done.arrives(deadline, after(9000)));
        let stuck = Pace { done: 0, ..pace };
        assert!(!stuck.arrives(deadline, after(600)));
        assert_eq!(time_for(64 << 20, 32 << 20), Duration::from_secs(2));
        assert_eq!(time_for(1, 0), Duration::from_secs(1));
        assert_eq!(pace.speed(after(1000)), Some(100));
        assert_eq!(pace.speed(after(100)), None);
    }

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
