//! What the agent says, on standard error: one line an event, no secret, no escape sequences.

use tracing::level_filters::LevelFilter;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Starts logging; later calls change nothing.
pub fn start(format: LogFormat, level: LevelFilter) {
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false);
    // Only the first one counts.
    let _started_before = match format {
        LogFormat::Text => lines.try_init().is_err(),
        LogFormat::Json => lines.json().flatten_event(true).try_init().is_err(),
    };
}
