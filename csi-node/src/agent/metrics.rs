//! What Prometheus sees of a node: its pool, its operations, its objects.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use proto::errors::Failure;

use super::objects::Measured;

/// Seconds, for operations: from a record to a copied disk.
const OPERATION: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0,
];
/// Seconds, for the time that writers stand still while a snapshot is cut.
const STALL: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// Extents of a disk that is cut; each costs about 25 us on XFS.
const EXTENTS: [f64; 8] = [10.0, 100.0, 1e3, 5e3, 1e4, 4e4, 1e5, 1e6];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailedOperation {
    operation: &'static str,
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: String,
}

/// Counts operations on data.
#[derive(Clone, Debug)]
pub(crate) struct Operations {
    total: Family<Operation, Counter>,
    errors: Family<FailedOperation, Counter>,
    seconds: Family<Operation, Histogram>,
    in_flight: Family<Operation, Gauge>,
    stall: Histogram,
    extents: Histogram,
}

/// The pool as it was measured last.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolGauges {
    pub(crate) up: Gauge,
    pub(crate) size: Gauge,
    pub(crate) used: Gauge,
    pub(crate) promised: Gauge,
    pub(crate) foreign: Gauge,
    pub(crate) available: Gauge,
    pub(crate) capacity_promised: Gauge,
    pub(crate) snapshots: Gauge,
    pub(crate) snapshots_damaged: Gauge,
    pub(crate) snapshots_undigested: Gauge,
    pub(crate) snapshots_oldest_check: Gauge,
    pub(crate) snapshots_unreadable: Gauge,
    pub(crate) snapshots_uncompressed: Gauge,
    pub(crate) snapshots_uncompressed_bytes: Gauge,
    pub(crate) snapshots_oldest_uncompressed: Gauge,
    pub(crate) snapshots_compressed: Gauge,
    pub(crate) snapshots_compressed_bytes: Gauge,
    pub(crate) compression_failures: Counter,
    pub(crate) orphans: Gauge,
    pub(crate) quarantined: Gauge,
    pub(crate) api_reachable: Gauge,
    pub(crate) registered: Gauge,
    overcommit: Gauge<f64, AtomicU64>,
    volumes: Family<InState, Gauge>,
}

impl Operations {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let made = Self {
            total: Family::default(),
            errors: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(OPERATION)),
            in_flight: Family::default(),
            stall: Histogram::new(STALL),
            extents: Histogram::new(EXTENTS),
        };
        registry.register(
            "operations",
            "Operations on volumes and snapshots that ended, by kind",
            made.total.clone(),
        );
        registry.register(
            "operation_errors",
            "Operations that failed, by kind of failure",
            made.errors.clone(),
        );
        registry.register(
            "operation_seconds",
            "How long operations took, in seconds",
            made.seconds.clone(),
        );
        registry.register(
            "operations_in_flight",
            "Operations that run now",
            made.in_flight.clone(),
        );
        registry.register(
            "snapshot_stall_seconds",
            "How long writers were held back while a snapshot was cut, in seconds",
            made.stall.clone(),
        );
        registry.register(
            "snapshot_extents",
            "Runs of data in disks when they were cut",
            made.extents.clone(),
        );
        made
    }

    /// An operation begins.
    pub(crate) fn begin(&self, operation: &'static str) -> InFlight {
        let label = Operation { operation };
        self.in_flight.get_or_create(&label).inc();
        InFlight {
            operations: self.clone(),
            label,
        }
    }
}

/// An operation that runs.
#[derive(Debug)]
pub(crate) struct InFlight {
    operations: Operations,
    label: Operation,
}

impl InFlight {
    /// The operation ended.
    pub(crate) fn end(self, elapsed: Duration, result: &Result<Measured, Failure>) {
        let all = &self.operations;
        all.total.get_or_create(&self.label).inc();
        let seconds = all.seconds.get_or_create(&self.label);
        seconds.observe(elapsed.as_secs_f64());
        drop(seconds);
        match result {
            Ok(measured) => {
                if let Some((stall_us, extents)) = measured.cut {
                    all.stall
                        .observe(Duration::from_micros(stall_us).as_secs_f64());
                    all.extents.observe(number(extents));
                }
            }
            Err(failure) => {
                let label = FailedOperation {
                    operation: self.label.operation,
                    kind: format!("{:?}", failure.kind),
                };
                all.errors.get_or_create(&label).inc();
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.operations.in_flight.get_or_create(&self.label).dec();
    }
}

impl PoolGauges {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let made = Self::default();
        let described = made.described().into_iter();
        for (name, help, gauge) in described.chain(made.of_data()) {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "pool_overcommit_ratio",
            "How much may be promised for each byte there is",
            made.overcommit.clone(),
        );
        registry.register(
            "volumes",
            "Volumes by the state of their object",
            made.volumes.clone(),
        );
        registry.register(
            "snapshot_compression_failures",
            "Compressions of snapshots that failed; the snapshot stays as it is, and it is tried again",
            made.compression_failures.clone(),
        );
        made
    }

    fn described(&self) -> [(&'static str, &'static str, &Gauge); 12] {
        [
            ("pool_up", "Whether the pool is open: 1 or 0", &self.up),
            ("pool_size_bytes", "The size of the filesystem", &self.size),
            ("pool_used_bytes", "What is used of it", &self.used),
            (
                "pool_promised_bytes",
                "What volumes and snapshots may come to together",
                &self.promised,
            ),
            (
                "pool_foreign_bytes",
                "What is used by files that are not ours",
                &self.foreign,
            ),
            (
                "pool_available_bytes",
                "What one new volume may come to",
                &self.available,
            ),
            (
                "pool_capacity_promised",
                "Whether what was promised can be kept whatever guests write: 1 or 0",
                &self.capacity_promised,
            ),
            ("snapshots", "Snapshots in the pool", &self.snapshots),
            (
                "orphans",
                "Volumes and snapshots in the pool without an object",
                &self.orphans,
            ),
            (
                "quarantined",
                "Volumes and snapshots that cannot be trusted",
                &self.quarantined,
            ),
            (
                "api_reachable",
                "Whether the API server answered last: 1 or 0",
                &self.api_reachable,
            ),
            (
                "kubelet_registered",
                "Whether kubelet took the driver: 1 or 0",
                &self.registered,
            ),
        ]
    }

    /// What is known of the data of snapshots.
    fn of_data(&self) -> [(&'static str, &'static str, &Gauge); 9] {
        [
            (
                "snapshots_damaged",
                "Snapshots that are known to be damaged: nothing is restored from them",
                &self.snapshots_damaged,
            ),
            (
                "snapshots_undigested",
                "Snapshots whose data is still to be digested",
                &self.snapshots_undigested,
            ),
            (
                "snapshots_oldest_check_seconds",
                "How long ago the data of a snapshot was compared with its digest, of the one where that is longest",
                &self.snapshots_oldest_check,
            ),
            (
                "snapshots_unreadable",
                "Snapshots that the disk did not give when they were read last: no proof of damage to them",
                &self.snapshots_unreadable,
            ),
            (
                "snapshots_uncompressed",
                "Snapshots that are to be compressed and are not yet",
                &self.snapshots_uncompressed,
            ),
            (
                "snapshots_uncompressed_bytes",
                "What the images of those hold",
                &self.snapshots_uncompressed_bytes,
            ),
            (
                "snapshots_oldest_uncompressed_seconds",
                "How long ago one of those was cut, of the one where that is longest",
                &self.snapshots_oldest_uncompressed,
            ),
            (
                "snapshots_compressed",
                "Snapshots that are compressed",
                &self.snapshots_compressed,
            ),
            (
                "snapshots_compressed_bytes",
                "What the images of those hold",
                &self.snapshots_compressed_bytes,
            ),
        ]
    }

    /// Sets how often compressions have failed since the start.
    pub(crate) fn set_compression_failures(&self, failures: u64) {
        let known = self.compression_failures.get();
        self.compression_failures
            .inc_by(failures.saturating_sub(known));
    }

    pub(crate) fn set_overcommit(&self, ratio: f64) {
        self.overcommit.set(ratio);
    }

    /// Sets how many volumes are in each state.
    pub(crate) fn set_volumes(&self, states: impl Iterator<Item = String>) {
        let mut counts = std::collections::BTreeMap::new();
        for state in [
            "Pending",
            "Ready",
            "Failed",
            "DataMissing",
            "Deleting",
            "Deleted",
        ] {
            counts.insert(state.to_owned(), 0);
        }
        for state in states {
            *counts.entry(state).or_default() += 1;
        }
        for (state, count) in counts {
            self.volumes.get_or_create(&InState { state }).set(count);
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a count in a histogram")]
fn number(count: u64) -> f64 {
    count as f64
}
