//! What an operator sees: the reference of the metrics, the alerts, the dashboard, and all of them in a real Prometheus.

mod cluster;
mod dashboard;
mod discovery;
mod formats;
mod pages;
mod reference;
mod rules;
mod server;

use std::path::PathBuf;

/// Returns the path of a file of the repository.
fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(name)
}

/// Reads a file of the repository.
fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Finds the metrics of the outbox that `text` names and that do not exist.
fn unknown_metrics(text: &str) -> Vec<&str> {
    let known: Vec<String> =
        gamemesh_outbox::telemetry::reference::ALL.iter().flat_map(|about| about.series()).collect();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let named = words.filter(|word| ["gamemesh_", "process_"].iter().any(|ours| word.starts_with(ours)));
    named.filter(|word| known.iter().all(|known| known != word)).collect()
}
