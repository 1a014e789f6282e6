//! `outbox-relay status`: how the outbox is doing, for a person or a script.

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use gamemesh_outbox::store::overview::Overview;
use serde_json::{Value, json};

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
    let (looked, bus) = tokio::join!(look(&*store, args.topics), bus.reach());
    let status = Status { store: looked.map_err(|error| error.line()), bus };
    print(&if args.json { format!("{:#}\n", status.json()) } else { status.tables() })?;
    status.verdict()
}

/// Reads the version of the schema and what is in the store.
async fn look(store: &dyn OutboxStore, topics: u32) -> Result<(i64, Overview), CommandError> {
    let states = store.migration_status().await?;
    let applied = states.iter().filter(|state| state.applied).map(|state| state.migration.version);
    Ok((applied.max().unwrap_or_default(), store.overview(topics).await?))
}

/// What was found; an `Err` says why the store or the bus cannot be reached.
struct Status {
    store: Result<(i64, Overview), String>,
    bus: Result<(), String>,
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
        json
    }

    fn tables(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.add_row(["Store", &state(self.store.as_ref().err())]);
        table.add_row(["Bus", &state(self.bus.as_ref().err())]);
        let Ok((schema, seen)) = &self.store else { return format!("{table}\n") };
        let due_for = seen.oldest_due_age.map(|age| format!(", the oldest for {:.1} s", age.as_secs_f64()));
        let oldest = seen.oldest_dead_letter.map(|time| format!(", the oldest from {time:.0}"));
        table.add_row(["Schema version", &format!("{schema:04}")]);
        table.add_row(["Pending", &seen.pending.to_string()]);
        table.add_row(["  due", &format!("{}{}", seen.due, due_for.unwrap_or_default())]);
        table.add_row(["  waiting", &seen.waiting.to_string()]);
        table.add_row(["Failed", &format!("{}{}", seen.failed, oldest.unwrap_or_default())]);
        table.add_row(["Published, kept", &seen.published.to_string()]);
        for relay in &seen.relays {
            table.add_row(["Relay seen", &format!("{} ({} connections)", one_line(&relay.client), relay.connections)]);
        }
        if seen.topics.is_empty() {
            return format!("{table}\n");
        }
        let mut topics = Table::new();
        topics.load_style(UTF8_BORDERS_ONLY).set_header(["Topic", "Pending"]);
        for topic in &seen.topics {
            topics.add_row([one_line(&topic.topic), topic.pending.to_string()]);
        }
        format!("{table}\n{topics}\n")
    }

    fn verdict(&self) -> Result<(), CommandError> {
        match (&self.store, &self.bus) {
            (Ok(_), Ok(())) => Ok(()),
            (Err(_), Ok(())) => Err(CommandError::unhealthy("the store cannot be used")),
            (Ok(_), Err(_)) => Err(CommandError::unhealthy("the bus cannot be used")),
            (Err(_), Err(_)) => Err(CommandError::unhealthy("neither the store nor the bus can be used")),
        }
    }
}

fn state(error: Option<&String>) -> String {
    error.map_or("reachable".to_owned(), |error| one_line(error))
}
