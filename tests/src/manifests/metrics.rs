//! The names of all metrics that the programs export, as Prometheus stores them.

/// csi-node and csi-controller. A histogram is here by what it is called without `_bucket`, `_count` and `_sum`.
pub const EXPORTED: &[&str] = &[
    // every program
    "vd_build_info",
    "vd_process_resident_bytes",
    "vd_process_threads",
    "vd_process_open_files",
    "vd_grpc_requests_total",
    "vd_grpc_request_seconds",
    "vd_grpc_in_flight",
    // csi-node: its pool
    "vd_pool_up",
    "vd_pool_size_bytes",
    "vd_pool_used_bytes",
    "vd_pool_promised_bytes",
    "vd_pool_foreign_bytes",
    "vd_pool_available_bytes",
    "vd_pool_overcommit_ratio",
    "vd_pool_capacity_promised",
    "vd_volumes",
    "vd_snapshots",
    "vd_snapshots_damaged",
    "vd_snapshots_undigested",
    "vd_snapshots_oldest_check_seconds",
    "vd_snapshots_unreadable",
    "vd_snapshots_uncompressed",
    "vd_snapshots_uncompressed_bytes",
    "vd_snapshots_oldest_uncompressed_seconds",
    "vd_snapshots_compressed",
    "vd_snapshots_compressed_bytes",
    "vd_snapshot_compression_failures_total",
    "vd_orphans",
    "vd_quarantined",
    "vd_api_reachable",
    "vd_kubelet_registered",
    // csi-node: what it does
    "vd_operations_total",
    "vd_operation_errors_total",
    "vd_operation_seconds",
    "vd_operations_in_flight",
    "vd_snapshot_stall_seconds",
    "vd_snapshot_extents",
    // csi-controller
    "vd_volumes_unclaimed",
];

/// The metric that a query means by `name`.
#[must_use]
pub fn base(name: &str) -> &str {
    let parts = ["_bucket", "_count", "_sum"];
    let stripped = parts.iter().find_map(|part| name.strip_suffix(part));
    stripped
        .filter(|base| EXPORTED.contains(base))
        .unwrap_or(name)
}

/// Names that begin with `vd_` in a query.
pub fn named(query: &str) -> impl Iterator<Item = &str> {
    let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    query
        .split(move |letter| !word(letter))
        .filter(|name| name.starts_with("vd_"))
}
