//! Letting everybody else go first, `ioprio_set(2)` and `setpriority(2)`.

use std::io;

/// `IOPRIO_WHO_PROCESS`, of which 0 is the thread that calls.
const THIS_THREAD: libc::c_int = 1;
/// `IOPRIO_CLASS_IDLE` in its place: the disk is asked only when nobody else asks it.
const IDLE: libc::c_int = 3 << 13;
/// The lowest level of the usual class.
const LAST_OF_USUAL: libc::c_int = 2 << 13 | 7;
/// The least of the priorities for processors.
const LEAST: libc::c_int = 19;

/// Gives the thread that calls the idle class of disk I/O and the least share of the processors, until it ends.
///
/// # Errors
/// The kernel's; what was done before stays.
pub fn yield_to_others() -> io::Result<()> {
    // SAFETY: the call takes three plain numbers and changes nothing but the calling thread's own priority.
    let code = unsafe { libc::syscall(libc::SYS_ioprio_set, THIS_THREAD, 0, IDLE) };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above; on Linux `PRIO_PROCESS` with 0 is the calling thread alone.
    let code = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LEAST) };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives the thread that calls the last place among all who use the disk in the usual way, until it ends: it still gets on when the
/// disk is busy, which the idle class does not promise.
///
/// # Errors
/// The kernel's.
pub fn give_way() -> io::Result<()> {
    // SAFETY: the call takes three plain numbers and changes nothing but the calling thread's own priority.
    let code = unsafe { libc::syscall(libc::SYS_ioprio_set, THIS_THREAD, 0, LAST_OF_USUAL) };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_yields_is_in_the_idle_class_and_one_that_gives_way_the_last_of_the_usual() {
        let class_after = |what: fn() -> io::Result<()>| {
            let class = std::thread::spawn(move || {
                what().unwrap();
                // SAFETY: two plain numbers; nothing is changed.
                unsafe { libc::syscall(libc::SYS_ioprio_get, THIS_THREAD, 0) }
            });
            class.join().unwrap()
        };
        assert_eq!(class_after(yield_to_others), libc::c_long::from(IDLE));
        assert_eq!(class_after(give_way), libc::c_long::from(LAST_OF_USUAL));
    }
}
