//! Which program this is.

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Registers `vd_build_info{program,version} 1`.
pub fn register(registry: &mut Registry, program: &'static str, version: &'static str) {
    let info = Info::new(vec![("program", program), ("version", version)]);
    registry.register("build", "The program and its version", info);
}
