//! How much memory a process takes, as the kernel counts it.

/// The memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that ever was resident.
    pub peak: u64,
}

/// The memory of the running process `pid`.
#[track_caller]
#[must_use]
pub fn of(pid: u32) -> Memory {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap_or_else(|error| panic!("read the status of process {pid}: {error}"));
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let words = line.unwrap_or_default().split_whitespace().nth(1);
        let kib: u64 = words.expect("a figure").parse().expect("a number of KiB");
        kib << 10
    };
    Memory {
        resident: field("VmRSS:"),
        peak: field("VmHWM:"),
    }
}
