//! What the machine lets root do.

/// Whether this process, and so what it starts, may grow a mounted ext4: the kernel asks for `CAP_SYS_RESOURCE`.
#[must_use]
pub fn may_grow_mounted_ext4() -> bool {
    const SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .expect("the kernel lists the capabilities");
    set & (1 << SYS_RESOURCE) != 0
}
