//! `outbox-relay dead-letters`: what was set aside, and what a person does about it.

mod args;
mod change;
mod read;

pub(crate) use self::args::DeadLettersCommand;

use crate::config::Config;
use crate::logging::{self, Logger};
use crate::report::CommandError;

/// Runs `dead-letters`.
pub(crate) async fn dead_letters(config: Config, command: DeadLettersCommand) -> Result<(), CommandError> {
    config.store()?;
    let tracing = logging::start(Logger::Command, &config.log, &config.otel)?;
    let done = carry_out(&config, command).await;
    tracing.flush().await;
    done
}

async fn carry_out(config: &Config, command: DeadLettersCommand) -> Result<(), CommandError> {
    let store = config.open_store(false).await?.store;
    store.check_schema().await?;
    match command {
        DeadLettersCommand::List(args) => read::list(&*store, args).await,
        DeadLettersCommand::Show(args) => read::show(&*store, args).await,
        DeadLettersCommand::Requeue(args) => change::requeue(&*store, args, config.duplicate_window()).await,
        DeadLettersCommand::Discard(args) => change::discard(&*store, args).await,
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
