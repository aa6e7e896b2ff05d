//! The log of a program: to standard error, for people or as JSON.

use tracing_subscriber::EnvFilter;

/// The environment variable that says what is logged, as `tracing-subscriber` reads it: `debug`, `csi_node=debug,info`.
pub const FILTER: &str = "VD_LOG";

/// Starts the log of this process. Call it once, first; a second call changes nothing.
///
/// With `json` each line is an object with the fields of the event and of the spans around it (`request_id`, `volume_id`).
pub fn start(json: bool) {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(false)
        // A log that cannot be written (its disk is full) would else be complained about on the same place, and panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let started = if json {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
    if let Err(error) = started {
        tracing::debug!(%error, "the log was started before");
    }
}
