//! What the program itself takes of the machine, read when somebody asks.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Registers `vd_process_resident_bytes`, `vd_process_threads` and `vd_process_open_files`.
pub fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(Process));
}

#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        // Not there on a machine without /proc: then there is nothing to say.
        let figures = [
            (
                "process_resident_bytes",
                "Memory in RAM, in bytes",
                field(&status, "VmRSS:").map(|kib| kib.saturating_mul(1024)),
            ),
            ("process_threads", "Threads", field(&status, "Threads:")),
            ("process_open_files", "Open file descriptors", open_files()),
        ];
        for (name, help, value) in figures {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

fn field(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_files() -> Option<i64> {
    i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn a_figure_is_found_by_its_name_and_anything_else_is_nothing() {
        let status = "Name:\tvd\nVmRSS:\t   20480 kB\nThreads:\t4\n";
        assert_eq!(field(status, "VmRSS:"), Some(20480));
        assert_eq!(field(status, "Threads:"), Some(4));
        assert_eq!(field(status, "VmSwap:"), None);
        assert_eq!(field("VmRSS:\n", "VmRSS:"), None);
    }
}
