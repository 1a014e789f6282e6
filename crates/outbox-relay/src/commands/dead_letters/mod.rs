//! `outbox-relay dead-letters`: what was set aside, and what a person does about it.

mod args;
mod change;
mod read;

pub(crate) use self::args::DeadLettersCommand;

use crate::assemble::{self, OutboxStore, Producer, WithStore};
use crate::config::Config;
use crate::config::types::EventBus;
use crate::logging::{self, Logger};
use crate::report::CommandError;

/// Runs `dead-letters`.
pub(crate) async fn dead_letters(config: Config, command: DeadLettersCommand) -> Result<(), CommandError> {
    let database = config.database()?;
    let tracing = logging::start(Logger::Command, &config.log, &config.otel)?;
    let duplicate_window = match config.event_bus {
        EventBus::Nats => config.nats.duplicate_window,
        // They keep every copy.
        EventBus::Redis | EventBus::Stdout => std::time::Duration::ZERO,
    };
    let done = assemble::with_store(&config, database, false, Work { command, duplicate_window }).await;
    tracing.flush().await;
    done
}

struct Work {
    command: DeadLettersCommand,
    duplicate_window: std::time::Duration,
}

impl WithStore for Work {
    async fn with_store(self, store: impl OutboxStore, _: impl Producer) -> Result<(), CommandError> {
        store.check_schema().await?;
        match self.command {
            DeadLettersCommand::List(args) => read::list(&store, args).await,
            DeadLettersCommand::Show(args) => read::show(&store, args).await,
            DeadLettersCommand::Requeue(args) => change::requeue(&store, args, self.duplicate_window).await,
            DeadLettersCommand::Discard(args) => change::discard(&store, args).await,
        }
    }
}

/// Makes text from the database safe for a terminal: what steers it is written out.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Writes a number as people read it: `1,204`.
fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}
