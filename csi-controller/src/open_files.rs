//! How many files a server may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More than any server of ours comes to; programs that we start inherit the limit, and some look at each number below it.
const MOST: u64 = 1 << 20;

/// Raises the limit of open files as far as it may be raised. The usual 1024 is meant for programs that use select(2): a thousand
/// connections, or a node of many volumes, would take it up, and then no file of the pool can be opened either.
pub fn raise() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(now, most)| {
        let wanted = most.min(MOST);
        if now >= wanted {
            return Ok(());
        }
        setrlimit(Resource::RLIMIT_NOFILE, wanted, most)
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
