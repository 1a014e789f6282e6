//! `outbox-relay doctor`: what is wrong with the servers, what it risks, and what to paste.

#[cfg(test)]
mod page;
mod relay;
mod settings;

use std::fmt::Write;
use std::time::Duration;

use clap::Args;
use gamemesh_outbox::diagnosis::{Demands, Finding, Severity};
use gamemesh_outbox::store::OnPublished;
use serde_json::{Value, json};

use super::running::RunningArgs;
use crate::config::Config;
use crate::logging::{self, Logger};
use crate::output::{one_line, print};
use crate::report::CommandError;
use crate::settings::values::positive_duration;

/// How many topics for which events wait are looked for on the bus, those with the most events.
const TOPICS_MAX: u32 = 50;

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Prints JSON instead of text
    #[arg(long)]
    json: bool,
    /// From which age on a transaction of the database is a long one
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = read_duration)]
    long_transaction: Duration,
    #[command(flatten)]
    running: RunningArgs,
}

fn read_duration(text: &str) -> Result<Duration, String> {
    positive_duration(text).ok_or_else(|| "expected a duration above 0, such as 250ms, 1s or 5m".to_owned())
}

/// Runs `doctor`.
pub(crate) async fn doctor(config: Config, args: DoctorArgs) -> Result<(), CommandError> {
    config.store()?;
    let tracing = logging::start(Logger::Command, &config.log, &config.otel)?;
    let examined = examine(&config, &args).await;
    tracing.flush().await;
    examined
}

async fn examine(config: &Config, args: &DoctorArgs) -> Result<(), CommandError> {
    let bus = config.connect_bus().await?;
    let store = config.open_store(false).await?.store;
    // Without a table nothing waits, and the examination of the store says so.
    let waiting = store.overview(TOPICS_MAX).await.map(|overview| overview.topics).unwrap_or_default();
    // What the relay itself refuses needs no place on the bus.
    let topics = waiting.into_iter().map(|backlog| backlog.topic);
    let topics = topics.filter(|topic| config.relay.validator.topic(topic)).collect();
    let demands = Demands { topics, ..demands(config, args.long_transaction) };
    let (mut findings, of_bus, running) =
        tokio::join!(store.diagnose(&demands), config.diagnose_bus(&*bus, &demands), args.running.ask(config.http));
    findings.extend(of_bus);
    findings.extend(settings::examine(config, &*store).await);
    findings.extend(relay::judge(&running));
    // What matters most stands last, next to the prompt.
    findings.sort_by_key(|finding| finding.severity);
    let report = Report(findings);
    print(&if args.json { format!("{:#}\n", report.json()) } else { report.text() })?;
    match report.count(Severity::Error) {
        0 => Ok(()),
        count => Err(CommandError::unhealthy(format!("errors found: {count}"))),
    }
}

/// What a relay with these settings will ask of the servers.
fn demands(config: &Config, long_transaction: Duration) -> Demands {
    let relay = &config.relay;
    // A try, the longest wait after a lost acknowledgement (jitter may double it), a poll, and the next try.
    let wait = relay.retry.initial.max(relay.outage.max) * 2;
    Demands {
        deletes: relay.on_published == OnPublished::Delete || config.retention.is_some(),
        payload_bytes_max: relay.validator.payload_bytes_max,
        retry_span: relay.publish_timeout * 2 + wait + relay.poll_interval,
        long_transaction,
        topics: Vec::new(),
    }
}

struct Report(Vec<Finding>);

impl Report {
    fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|finding| finding.severity == severity).count()
    }

    fn json(&self) -> Value {
        let findings = self.0.iter().map(|finding| {
            let trouble = finding.severity != Severity::Ok;
            json!({
                "check": finding.check.name,
                "severity": finding.severity,
                "found": finding.found,
                "risk": trouble.then_some(finding.check.risk),
                "fix": trouble.then_some(&finding.fix),
            })
        });
        json!({
            "findings": findings.collect::<Vec<_>>(),
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.0 {
            let severity = match finding.severity {
                Severity::Ok => "ok",
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{severity:<8} {}: {}", finding.check.name, one_line(&finding.found));
            if finding.severity != Severity::Ok {
                let _ = writeln!(text, "  risk:  {}\n  fix:", finding.check.risk);
                for line in finding.fix.lines() {
                    let _ = writeln!(text, "    {}", one_line(line));
                }
            }
        }
        let [errors, warnings, ok] = [Severity::Error, Severity::Warning, Severity::Ok].map(|kind| self.count(kind));
        let _ = writeln!(text, "\n{}, {}, {ok} ok", counted(errors, "error"), counted(warnings, "warning"));
        text
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
