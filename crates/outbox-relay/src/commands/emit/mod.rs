//! `outbox-relay emit`: events from the command line, a file or standard input into the outbox.

mod input;

use std::path::PathBuf;

use async_trait::async_trait;
use clap::Args;
use gamemesh_outbox::{NewEvent, OutboxPublisher};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use uuid::Uuid;

use self::input::Input;
use crate::adapters::EventSource;
use crate::config::Config;
use crate::logging::{self, Logger};
use crate::output::print;
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
    /// When it is due, as in 2026-01-02T03:04:05Z, by the database's clock; at once if left out
    #[arg(long, value_name = "TIME", conflicts_with = "file")]
    available_at: Option<Timestamp>,
    /// JSON lines instead: {"topic","event_type","payload"} and, optionally, "key", "headers", "carrier", "id" and
    /// "available_at". `-` is standard input
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
    config.store()?;
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
    let mut events = Events { input, ids: Vec::new(), count: 0, print_ids };
    let style = "{spinner} {decimal_bytes} of {decimal_total_bytes} {wide_bar} {eta}";
    progress.set_style(ProgressStyle::with_template(style).expect("a valid template"));
    let written = write(&config, &OutboxPublisher::new(validator), &mut events).await;
    progress.finish_and_clear();
    tracing.flush().await;
    written?;
    // Only what is committed is told.
    events.tell()
}

async fn write(config: &Config, publisher: &OutboxPublisher, events: &mut Events) -> Result<(), CommandError> {
    let opened = config.open_store(false).await?;
    opened.store.check_schema().await?;
    opened.producer.emit(publisher, events).await
}

fn single(args: &EmitArgs) -> Result<NewEvent, CommandError> {
    let (Some(topic), Some(payload)) = (&args.topic, &args.payload) else {
        return Err(CommandError::usage("expected --topic and --payload, or --file"));
    };
    let event = NewEvent::from_json(topic, &args.event_type, payload)
        .map_err(|error| CommandError::failure("cannot use --payload", error))?;
    let event = args.header.iter().fold(event, |event, (name, value)| event.header(name, value));
    let event = match &args.key {
        Some(key) => event.key(key),
        None => event,
    };
    Ok(match args.available_at {
        Some(time) => event.available_at(time),
        None => event,
    })
}

/// Events on their way into the outbox.
struct Events {
    input: Input,
    ids: Vec<Uuid>,
    count: u64,
    print_ids: bool,
}

#[async_trait]
impl EventSource for Events {
    async fn next_batch(&mut self) -> Result<Option<Vec<NewEvent>>, CommandError> {
        let batch = self.input.next_batch().await?;
        self.count += batch.as_ref().map_or(0, Vec::len) as u64;
        if self.print_ids {
            self.ids.extend(batch.iter().flatten().map(NewEvent::id));
        }
        Ok(batch)
    }
}

impl Events {
    fn tell(&self) -> Result<(), CommandError> {
        if self.print_ids {
            print(&self.ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        } else {
            eprintln!("{} events written", self.count);
        }
        Ok(())
    }
}
