//! Whether a bus takes events from a relay with certain settings, or refuses it.

use std::time::Instant;

use tempfile::TempDir;

use crate::program::{PATIENCE, Relay, run, sqlite, transcript};

pub(crate) type Settings = Vec<(&'static str, String)>;

/// Adds settings to others.
pub(crate) fn with(settings: &Settings, more: &[(&'static str, &str)]) -> Settings {
    let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
    settings.iter().cloned().chain(more).collect()
}

pub(crate) fn environment(settings: &Settings) -> Vec<(&str, &str)> {
    settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// An outbox of its own in SQLite, and the settings that lead from it to a bus.
pub(crate) struct Probe {
    _folder: TempDir,
    settings: Settings,
}

impl Probe {
    pub(crate) fn new(bus: &Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = sqlite(folder.path());
        let settings = with(bus, &[("DATABASE_URL", &database), ("OUTBOX_POLL_INTERVAL", "20ms")]);
        let probe = Self { _folder: folder, settings };
        probe.done(&["migrate", "up"]);
        probe
    }

    pub(crate) fn environment(&self) -> Vec<(&str, &str)> {
        environment(&self.settings)
    }

    /// Writes an event.
    pub(crate) fn emit(&self) {
        self.emit_payload("1");
    }

    pub(crate) fn emit_payload(&self, payload: &str) {
        self.done(&["emit", "--topic", "events.player", "--payload", payload]);
    }

    pub(crate) fn relay(&self) -> Relay {
        let relay = Relay::start(&self.environment());
        relay.wait_for_log("relay running");
        relay
    }

    fn done(&self, command: &[&str]) {
        let output = run(command, &self.environment());
        assert!(output.status.success(), "{}", transcript(&output));
    }
}

/// Waits until a relay has had `count` events acknowledged.
pub(crate) fn until_published(relay: &Relay, count: u32) {
    let counted = format!("gamemesh_outbox_events_published_total{{service=\"outbox-relay\"}} {count}\n");
    let began = Instant::now();
    while !relay.get("/metrics").1.contains(&counted) {
        assert!(began.elapsed() < PATIENCE, "{}", relay.get("/readyz").1);
        std::thread::yield_now();
    }
}

/// Runs a relay on an outbox of its own until its one event is on the bus.
pub(crate) fn published_once(bus: &Settings) {
    let probe = Probe::new(bus);
    probe.emit();
    until_published(&probe.relay(), 1);
}

/// Asks for the status of a bus that must be refused, and for the reason. Returns everything that was printed.
pub(crate) fn bus_is_refused(bus: &Settings, said: &str) -> String {
    let probe = Probe::new(&with(bus, &[("LOG_LEVEL", "trace")]));
    let output = run(&["status"], &probe.environment());
    let text = transcript(&output);
    assert_eq!(output.status.code(), Some(1), "{bus:?}: {text}");
    assert!(text.contains(said), "{bus:?}: expected {said:?} in {text}");
    text
}
