//! R: what a relay says under the target [`TARGET`], from the lines of its log or inside its process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use serde::Deserialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context as LayerContext, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::history::{Exit, Nanos, Recorder, RelayEvent, RelayRecord, RelayRun};

/// The target of a relay's history. `LOG_LEVEL=info,gamemesh_outbox::history=trace` asks a process for it.
pub const TARGET: &str = "gamemesh_outbox::history";

/// One event as it was said: its message, and the fields that some event has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    target: String,
    ts: String,
    msg: String,
    relay: String,
    claim: u64,
    took_ns: u64,
    ids: String,
    receipts: String,
    outcomes: String,
    published: u64,
    dead_lettered: String,
    unwritten: String,
}

impl Said {
    fn event(&self) -> Result<RelayEvent> {
        let claim = self.claim;
        Ok(match self.msg.as_str() {
            "started" => RelayEvent::Started,
            "claimed" => RelayEvent::Claimed { claim, took: self.took_ns, ids: list(&self.ids)? },
            "sending" => RelayEvent::Sending { claim },
            "receipts" => RelayEvent::Receipts { claim, receipts: list(&self.receipts)? },
            "settling" => RelayEvent::Settling { claim, outcomes: list(&self.outcomes)? },
            "settled" => {
                let dead_lettered = list(&self.dead_lettered)?;
                let unwritten = list(&self.unwritten)?;
                RelayEvent::Settled { claim, published: self.published, dead_lettered, unwritten }
            }
            "abandoned" => RelayEvent::Abandoned { claim },
            "stop requested" => RelayEvent::StopRequested,
            other => anyhow::bail!("a relay's history knows no {other:?}"),
        })
    }
}

fn list<T: std::str::FromStr>(text: &str) -> Result<Vec<T>>
where
    T::Err: fmt::Display,
{
    let items = text.split(',').filter(|item| !item.is_empty());
    items.map(|item| item.parse().map_err(|error| anyhow!("{item:?}: {error}"))).collect()
}

/// Reads the log of one run of a relay in the format `json`, as far as it is the relay's history. Times are by the relay's
/// own clock, to the microsecond, less what that was `ahead` by (nanoseconds). A last line that does not end was cut off
/// when the process was killed, and is left out.
pub fn log(relay: &RelayRun, log: &str, ahead: i64) -> Result<Vec<RelayRecord>> {
    let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
    let mut records = Vec::new();
    for line in whole.lines() {
        if let Some((at, event)) = log_line(line)? {
            let at = at.checked_add_signed(-ahead).context("a time that is no time")?;
            records.push(RelayRecord { at, relay: relay.clone(), event });
        }
    }
    Ok(records)
}

/// Reads one line of such a log: when something happened, and what. `None` if the line is about something else.
pub fn log_line(line: &str) -> Result<Option<(Nanos, RelayEvent)>> {
    // Most of a log is about something else, and panics are no JSON.
    if !line.contains(TARGET) {
        return Ok(None);
    }
    let said: Said = serde_json::from_str(line).with_context(|| format!("expected a line of JSON, got {line:?}"))?;
    if said.target != TARGET {
        return Ok(None);
    }
    let timestamp: Timestamp = said.ts.parse().with_context(|| format!("timestamp in {line:?}"))?;
    let at = Nanos::try_from(timestamp.as_nanosecond()).context("a time before 1970")?;
    Ok(Some((at, said.event().with_context(|| line.to_owned())?)))
}

/// Listens to relays in its own process, each known by the name that its telemetry was given, and records what they say.
/// Clones share what they know.
#[derive(Clone)]
pub struct Witness {
    recorder: Recorder,
    clock: Arc<dyn Fn() -> Nanos + Send + Sync>,
    runs: Arc<Mutex<HashMap<String, Run>>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Run {
    number: u32,
    ended: bool,
}

impl Witness {
    /// Records into `recorder`, with the time that `clock` shows.
    pub fn new(recorder: Recorder, clock: impl Fn() -> Nanos + Send + Sync + 'static) -> Self {
        Self { recorder, clock: Arc::new(clock), runs: Arc::default() }
    }

    /// Returns the layer that listens; to be put on the subscriber that the relays run under.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        self.clone().with_filter(Targets::new().with_target(TARGET, Level::TRACE))
    }

    /// Returns the present run of a relay, or its last.
    pub fn run(&self, relay: &str) -> RelayRun {
        let run = self.lock().get(relay).copied().unwrap_or_default();
        RelayRun { name: relay.to_owned(), run: run.number }
    }

    /// Records that the present run of a relay ended so. What its remains say afterwards, while a simulated crash takes
    /// them apart, a dead process would not have said: it is left out, up to the next start.
    pub fn exited(&self, relay: &str, exit: Exit) {
        self.lock().entry(relay.to_owned()).or_default().ended = true;
        self.record(self.run(relay), RelayEvent::Exited(exit));
    }

    fn record(&self, relay: RelayRun, event: RelayEvent) {
        self.recorder.relay(RelayRecord { at: (self.clock)(), relay, event });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Run>> {
        self.runs.lock().expect("no code panics while it holds the lock")
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").field("recorder", &self.recorder).field("runs", &self.runs).finish_non_exhaustive()
    }
}

impl<S: Subscriber> Layer<S> for Witness {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let happened = said.event().expect("the library says only what this collector knows");
        let mut runs = self.lock();
        let run = runs.entry(said.relay.clone()).or_default();
        if happened == RelayEvent::Started {
            *run = Run { number: run.number + 1, ended: false };
        }
        let run = *run;
        drop(runs);
        if !run.ended {
            self.record(RelayRun { name: said.relay, run: run.number }, happened);
        }
    }
}

impl Visit for Said {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "claim" => self.claim = value,
            "took_ns" => self.took_ns = value,
            "published" => self.published = value,
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = match field.name() {
            "message" => &mut self.msg,
            "relay" => &mut self.relay,
            "ids" => &mut self.ids,
            "receipts" => &mut self.receipts,
            "outcomes" => &mut self.outcomes,
            "dead_lettered" => &mut self.dead_lettered,
            "unwritten" => &mut self.unwritten,
            _ => return,
        };
        *text = format!("{value:?}");
    }
}
