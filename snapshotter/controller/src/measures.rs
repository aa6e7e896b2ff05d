//! How much is known and how much waits, read when somebody asks.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::world::World;

/// Registers `snapshotter_snapshots`, `snapshotter_contents`, and `snapshotter_waiting_` for each queue.
pub(crate) fn register(registry: &mut Registry, world: &Arc<World>) {
    registry.register_collector(Box::new(Figures(Arc::clone(world))));
}

#[derive(Debug)]
struct Figures(Arc<World>);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let world = &self.0;
        let figures = [
            (
                "snapshotter_snapshots",
                "VolumeSnapshots in memory",
                world.snapshots.len(),
            ),
            (
                "snapshotter_contents",
                "VolumeSnapshotContents in memory",
                world.contents.len(),
            ),
            (
                "snapshotter_waiting_snapshots",
                "VolumeSnapshots to be looked at, now or after a pause",
                world.to_bind.len(),
            ),
            (
                "snapshotter_waiting_contents",
                "VolumeSnapshotContents to be looked at, now or after a pause",
                world.to_protect.len(),
            ),
            (
                "snapshotter_waiting_calls",
                "VolumeSnapshotContents for which the driver is called or to be called",
                world.to_call.len(),
            ),
        ];
        for (name, help, value) in figures {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}
