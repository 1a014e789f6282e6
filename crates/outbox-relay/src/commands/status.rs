//! `outbox-relay status`: how the outbox is doing, for a person or a script.

use clap::Args;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{ContentArrangement, Table};
use gamemesh_outbox::diagnosis::span;
use gamemesh_outbox::store::StoreErrorKind;
use gamemesh_outbox::store::overview::{FailingTopic, Overview, TopicBacklog};
use serde_json::{Value, json};

use super::running::{Running, RunningArgs, Said};
use crate::adapters::OutboxStore;
use crate::config::Config;
use crate::logging::{self, Logger};
use crate::output::{one_line, print};
use crate::report::CommandError;

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Prints JSON instead of a table
    #[arg(long)]
    json: bool,
    /// How many topics to list, those with the most pending events
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    topics: u32,
    #[command(flatten)]
    running: RunningArgs,
}

/// Runs `status`.
pub(crate) async fn status(config: Config, args: StatusArgs) -> Result<(), CommandError> {
    config.store()?;
    let tracing = logging::start(Logger::Command, &config.log, &config.otel)?;
    let asked = ask(&config, &args).await;
    tracing.flush().await;
    asked
}

async fn ask(config: &Config, args: &StatusArgs) -> Result<(), CommandError> {
    let bus = config.connect_bus().await?;
    let store = config.open_store(false).await?.store;
    let (looked, bus, relay) = tokio::join!(look(&*store, args.topics), bus.reach(), args.running.ask(config.http));
    let status = Status { store: looked.map_err(|error| error.line()), bus, relay };
    print(&if args.json { format!("{:#}\n", status.json()) } else { status.tables() })?;
    status.verdict()
}

/// Reads the version of the schema and what is in the store.
async fn look(store: &dyn OutboxStore, topics: u32) -> Result<(i64, Overview), CommandError> {
    // First, while this process has no other connection that would pass for a relay's.
    let overview = match store.overview(topics).await {
        Ok(overview) => overview,
        // A schema that is missing has a better word for it, and a hint.
        Err(error) => match store.check_schema().await {
            Err(schema) if schema.kind() == StoreErrorKind::Unusable => return Err(schema.into()),
            _ => return Err(error.into()),
        },
    };
    let states = store.migration_status().await?;
    let applied = states.iter().filter(|state| state.applied).map(|state| state.migration.version);
    Ok((applied.max().unwrap_or_default(), overview))
}

/// What was found; an `Err` says why the store or the bus cannot be reached.
struct Status {
    store: Result<(i64, Overview), String>,
    bus: Result<(), String>,
    relay: Running,
}

impl Status {
    fn json(&self) -> Value {
        let reachable = |error: Option<&String>| json!({ "reachable": error.is_none(), "error": error });
        let mut json = match &self.store {
            Ok((schema, seen)) => json!({
                "schema_version": schema,
                "pending": seen.pending,
                "due": seen.due,
                "waiting": seen.waiting,
                "failing": seen.failing,
                "oldest_failing": seen.oldest_failing,
                "failing_topics": seen.failing_topics,
                "due_later": seen.due_later,
                "from_the_future": seen.from_the_future,
                "due_later_first": seen.due_later_span.map(|(first, _)| first),
                "due_later_last": seen.due_later_span.map(|(_, last)| last),
                "failed": seen.failed,
                "published": seen.published,
                "oldest_due_age_seconds": seen.oldest_due_age.map(|age| age.as_secs_f64()),
                "oldest_dead_letter": seen.oldest_dead_letter,
                "topics": seen.topics,
                "relays": seen.relays,
            }),
            Err(_) => json!({}),
        };
        json["store"] = reachable(self.store.as_ref().err());
        json["bus"] = reachable(self.bus.as_ref().err());
        let said = self.relay.said.as_ref();
        json["relay"] = json!({
            "asked": self.relay.at,
            "ready": said.map(|said| said.readiness.ready),
            "reason": said.and_then(|said| said.readiness.reason.as_ref()),
            "troubles": said.map(|said| &said.troubles),
        });
        json
    }

    fn tables(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        let said = |side: fn(&Said) -> &Option<String>| self.relay.said.as_ref().and_then(|said| side(said).as_ref());
        table.add_row(["Store", &state(self.store.as_ref().err(), said(|said| &said.readiness.store.error))]);
        table.add_row(["Bus", &state(self.bus.as_ref().err(), said(|said| &said.readiness.bus.error))]);
        table.add_row(["Relay", &one_line(&self.relay.line())]);
        for (_, trouble) in self.relay.said.iter().flat_map(Said::trouble_lines) {
            table.add_row(["Trouble", &one_line(&trouble)]);
        }
        let Ok((schema, seen)) = &self.store else { return format!("{table}\n") };
        let due_for = seen.oldest_due_age.map(|age| format!(", the oldest for {:.1} s", age.as_secs_f64()));
        let oldest = seen.oldest_dead_letter.map(|time| format!(", the oldest from {time:.0}"));
        table.add_row(["Schema version", &format!("{schema:04}")]);
        table.add_row(["Pending", &seen.pending.to_string()]);
        table.add_row(["  due", &format!("{}{}", seen.due, due_for.unwrap_or_default())]);
        table.add_row(["  waiting", &seen.waiting.to_string()]);
        if let Some((first, last)) = seen.due_later_span {
            let ahead = match seen.from_the_future {
                0 => String::new(),
                ahead => format!("; {ahead} inserted by a clock that was ahead"),
            };
            table.add_row(["  due later", &format!("{}, from {first:.0} to {last:.0}{ahead}", seen.due_later)]);
        }
        if let Some(oldest) = seen.oldest_failing {
            table.add_row(["  failing", &format!("{}, the oldest from {oldest:.0}", seen.failing)]);
        }
        table.add_row(["Failed", &format!("{}{}", seen.failed, oldest.unwrap_or_default())]);
        table.add_row(["Published, kept", &seen.published.to_string()]);
        for relay in &seen.relays {
            table.add_row(["Relay seen", &format!("{} ({} connections)", one_line(&relay.client), relay.connections)]);
        }
        [Some(table), topics(&seen.topics), failing(&seen.failing_topics)]
            .into_iter()
            .flatten()
            .map(|table| format!("{table}\n"))
            .collect()
    }

    fn verdict(&self) -> Result<(), CommandError> {
        match (&self.store, &self.bus) {
            (Ok(_), Ok(())) if self.relay.said.as_ref().is_some_and(|said| !said.readiness.ready) => {
                Err(CommandError::unhealthy("the relay is not ready"))
            }
            (Ok(_), Ok(())) => Ok(()),
            (Err(_), Ok(())) => Err(CommandError::unhealthy("the store cannot be used")),
            (Ok(_), Err(_)) => Err(CommandError::unhealthy("the bus cannot be used")),
            (Err(_), Err(_)) => Err(CommandError::unhealthy("neither the store nor the bus can be used")),
        }
    }
}

fn topics(topics: &[TopicBacklog]) -> Option<Table> {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["Topic", "Pending", "Oldest due"]);
    for topic in topics {
        let due_for = topic.oldest_due_age.map(|age| span(age.as_secs_f64())).unwrap_or_default();
        table.add_row([one_line(&topic.topic), topic.pending.to_string(), due_for]);
    }
    (!topics.is_empty()).then_some(table)
}

/// `dead-letters show` has more of the events that are named.
fn failing(topics: &[FailingTopic]) -> Option<Table> {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_header([
        "Topic",
        "Failing",
        "For example",
        "Error",
    ]);
    for topic in topics {
        table.add_row([
            one_line(&topic.topic),
            topic.failing.to_string(),
            topic.example.to_string(),
            one_line(&topic.last_error),
        ]);
    }
    (!topics.is_empty()).then_some(table)
}

/// Says whether a side can be reached from here, and what the relay says of it where it cannot use it.
fn state(error: Option<&String>, said: Option<&String>) -> String {
    match (error, said) {
        (Some(error), _) => one_line(error),
        (None, Some(said)) => format!("reachable from here, but the relay cannot use it: {}", one_line(said)),
        (None, None) => "reachable".to_owned(),
    }
}
