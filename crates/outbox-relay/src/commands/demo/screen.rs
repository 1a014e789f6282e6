//! What the person in front of the terminal sees: live numbers, then the summary.

use std::convert::Infallible;
use std::io::IsTerminal;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use gamemesh_outbox::telemetry::Progress;
use indicatif::{ProgressBar, ProgressStyle};

use super::audit::{Counts, Report};

/// How often the numbers change on a terminal.
const REFRESH: Duration = Duration::from_millis(100);
/// How often a line is written where there is none: a log wants fewer.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// The live numbers, on standard error.
#[derive(Debug)]
pub(super) struct Screen {
    /// `None` where standard error is not a terminal.
    bar: Option<ProgressBar>,
    duration: Duration,
}

impl Screen {
    pub(super) fn new(duration: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {bar:24} {msg}").expect("the template is valid");
            ProgressBar::new(milliseconds(duration)).with_style(style)
        });
        Self { bar, duration }
    }

    /// Writes a line that stays.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Shows the numbers of `read` until it is dropped.
    pub(super) async fn show(&self, read: impl Fn() -> Numbers) -> Infallible {
        let mut ticks = tokio::time::interval(if self.bar.is_some() { REFRESH } else { LINE_INTERVAL });
        loop {
            ticks.tick().await;
            let numbers = read();
            match &self.bar {
                Some(bar) => {
                    bar.set_position(milliseconds(numbers.elapsed.min(self.duration)));
                    bar.set_message(numbers.line());
                }
                None => eprintln!("{}", numbers.line()),
            }
        }
    }

    /// Takes the live numbers away.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The numbers of one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub elapsed: Duration,
    pub counts: Counts,
    pub published: u64,
    pub dead_lettered: u64,
}

impl Numbers {
    pub(super) fn new(elapsed: Duration, counts: Counts, progress: &Progress) -> Self {
        Self { elapsed, counts, published: progress.published, dead_lettered: progress.dead_lettered }
    }

    fn line(&self) -> String {
        let Counts { committed, rolled_back, .. } = self.counts;
        let waiting = committed.saturating_sub(self.published + self.dead_lettered);
        format!(
            "{:>5.1} s  inserted {committed}  rolled back {rolled_back}  published {}  waiting {waiting}  dead letters {}",
            self.elapsed.as_secs_f64(),
            self.published,
            self.dead_lettered,
        )
    }
}

/// Writes the summary and the verdict.
pub(super) fn summary(report: &Report, open_for: Duration) -> String {
    let counts = report.counts;
    let rate = counts.delivered as f64 / open_for.as_secs_f64().max(0.001);
    let published = format!("received by the consumer, intact; {rate:.0} a second");
    let rows = [
        ("inserted", counts.committed, "events committed together with a business row"),
        ("rolled back", counts.rolled_back, "events of declined deals: they must never arrive"),
        ("published", counts.delivered, &published),
        ("dead-lettered", report.dead_lettered, "set aside as FAILED: no bus can carry them"),
        ("waiting", report.waiting, "not finished in time"),
        ("duplicates", counts.duplicates, "the same id a second time"),
        ("lost", report.lost, "committed, but neither published nor set aside"),
        ("phantoms", counts.phantoms, "published, but never committed"),
    ];
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["Events", "Count", "What it means"]);
    for (name, count, meaning) in rows {
        table.add_row([name, &count.to_string(), meaning]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let problems = report.problems();
    let verdict = match problems.is_empty() {
        true => format!(
            "Audit passed: {} inserted = {} published + {} dead-lettered, nothing lost, nothing made up.",
            counts.committed, counts.delivered, report.dead_lettered
        ),
        false => format!("Audit FAILED: {}.", problems.join("; ")),
    };
    format!("{table}\n{verdict}\n")
}
