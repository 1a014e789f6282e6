//! `outbox-relay emit`: events from the command line, a file or standard input into the outbox.

mod input;

use std::path::PathBuf;

use clap::Args;
use gamemesh_outbox::{NewEvent, OutboxPublisher, OutboxTransaction};
use indicatif::{ProgressBar, ProgressStyle};
use uuid::Uuid;

use self::input::Input;
use super::print;
use crate::assemble::{self, OutboxStore, Producer, WithStore};
use crate::config::Config;
use crate::logging::{self, Logger};
use crate::report::CommandError;

/// The arguments of `emit`.
#[derive(Args, Debug)]
pub(crate) struct EmitArgs {
    /// The topic of one event
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    topic: Option<String>,
    /// Its type
    #[arg(long = "type", value_name = "TYPE", default_value = "", conflicts_with = "file", hide_default_value = true)]
    event_type: String,
    /// Its payload
    #[arg(long, value_name = "JSON", required_unless_present = "file", conflicts_with = "file")]
    payload: Option<String>,
    /// Its key: what it is about
    #[arg(long, conflicts_with = "file")]
    key: Option<String>,
    /// A message header; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = header, conflicts_with = "file")]
    header: Vec<(String, String)>,
    /// JSON lines instead: {"topic","event_type","payload"} and, optionally, "key", "headers", "carrier" and "id". `-`
    /// is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Prints the ids of the events of a file as well; that of one event is always printed
    #[arg(long)]
    print_ids: bool,
}

fn header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs `emit`.
pub(crate) async fn emit(config: Config, args: EmitArgs) -> Result<(), CommandError> {
    let database = config.database()?;
    let tracing = logging::start(Logger::Command, &config.log, &config.otel)?;
    let validator = config.relay.validator.clone();
    let (input, progress) = match &args.file {
        Some(path) => {
            let progress = ProgressBar::no_length();
            (Input::open(path, validator.clone(), progress.clone()).await?, progress)
        }
        None => (Input::one(single(&args)?), ProgressBar::hidden()),
    };
    let print_ids = args.print_ids || args.file.is_none();
    let events = Events { input, publisher: OutboxPublisher::new(validator), ids: Vec::new(), count: 0, print_ids };
    let style = "{spinner} {decimal_bytes} of {decimal_total_bytes} {wide_bar} {eta}";
    progress.set_style(ProgressStyle::with_template(style).expect("a valid template"));
    let written = assemble::with_store(&config, database, false, events).await;
    progress.finish_and_clear();
    tracing.flush().await;
    written
}

fn single(args: &EmitArgs) -> Result<NewEvent, CommandError> {
    let (Some(topic), Some(payload)) = (&args.topic, &args.payload) else {
        return Err(CommandError::usage("expected --topic and --payload, or --file"));
    };
    let event = NewEvent::from_json(topic, &args.event_type, payload)
        .map_err(|error| CommandError::failure("cannot use --payload", error))?;
    let event = args.header.iter().fold(event, |event, (name, value)| event.header(name, value));
    Ok(match &args.key {
        Some(key) => event.key(key),
        None => event,
    })
}

/// Events on their way into the outbox.
pub(crate) struct Events {
    input: Input,
    publisher: OutboxPublisher,
    ids: Vec<Uuid>,
    count: u64,
    print_ids: bool,
}

impl Events {
    /// Writes everything in `tx`. Whoever called commits, or drops the transaction on an error.
    pub(crate) async fn write<T: OutboxTransaction>(&mut self, tx: &mut T) -> Result<(), CommandError> {
        while let Some(batch) = self.input.next_batch().await? {
            self.count += batch.len() as u64;
            if self.print_ids {
                self.ids.extend(batch.iter().map(NewEvent::id));
            }
            let written = self.publisher.publish_all(tx, batch).await;
            written.map_err(|error| CommandError::failure("nothing was written", error))?;
        }
        Ok(())
    }
}

impl WithStore for Events {
    async fn with_store(mut self, store: impl OutboxStore, producer: impl Producer) -> Result<(), CommandError> {
        store.check_schema().await?;
        producer.emit(&mut self).await?;
        // Only what is committed is told.
        if self.print_ids {
            print(&self.ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        } else {
            eprintln!("{} events written", self.count);
        }
        Ok(())
    }
}
