use std::num::NonZeroU32;

use clap::{Args, Subcommand};
use gamemesh_outbox::store::dead_letters::{Cursor, Filter, error_class};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

const EXAMPLES: &str = "\
Examples:
  outbox-relay dead-letters list --group
  outbox-relay dead-letters requeue --error 'headers are not a JSON object of strings' --dry-run
  outbox-relay dead-letters requeue --topic events.player --since 2h --rate 500/s
  outbox-relay dead-letters discard --id 0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f --reason 'test data'

Requeue and discard touch FAILED events only, and are written to the table outbox_audit. A command
that is given twice does nothing the second time.";

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// Lists events that were set aside, newest first, or groups them by error
    #[command(after_help = EXAMPLES)]
    List(ListArgs),
    /// Shows one event with its payload, and what was done to it
    Show(ShowArgs),
    /// Puts events back into the queue: attempts at 0, due at once
    #[command(after_help = EXAMPLES)]
    Requeue(RequeueArgs),
    /// Deletes events that nobody is to receive. This cannot be undone
    #[command(after_help = EXAMPLES)]
    Discard(DiscardArgs),
}

/// Which letters.
#[derive(Args, Debug)]
pub(super) struct FilterArgs {
    /// These ids; may be repeated, or separated by commas
    #[arg(long = "id", value_name = "ID", value_delimiter = ',')]
    ids: Vec<Uuid>,
    /// This topic
    #[arg(long)]
    topic: Option<String>,
    /// This event type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Errors like this one: the same but for numbers and quotations. As `list --group` shows it, or any `last_error`
    #[arg(long)]
    error: Option<String>,
    /// Inserted at this time or later: RFC 3339, or how long ago (`2h`)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Inserted before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
}

impl FilterArgs {
    pub(super) fn filter(self) -> Filter {
        Filter {
            ids: self.ids,
            topic: self.topic,
            event_type: self.event_type,
            error_class: self.error.as_deref().map(error_class),
            created_since: self.since,
            created_until: self.until,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Counts by error instead
    #[arg(long, conflicts_with = "after")]
    pub(super) group: bool,
    /// How many lines
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(super) limit: u32,
    /// Goes on where a list has ended
    #[arg(long, value_name = "CURSOR")]
    pub(super) after: Option<Cursor>,
    /// Prints JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// Its id
    pub(super) id: Uuid,
    /// Prints JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// How to act.
#[derive(Args, Debug)]
pub(super) struct ActArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Every dead letter; needed where nothing else says which
    #[arg(long, conflicts_with_all = ["ids", "topic", "event_type", "error", "since", "until"])]
    pub(super) all: bool,
    /// Shows what would happen and changes nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Does not ask
    #[arg(long)]
    pub(super) yes: bool,
    /// Not faster than this
    #[arg(long, value_name = "EVENTS/s", value_parser = rate)]
    pub(super) rate: Option<NonZeroU32>,
    /// Who you are, for the audit
    #[arg(help = "Who you are, for the audit [default: $USER@<host>]", long)]
    pub(super) actor: Option<String>,
    /// Prints JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RequeueArgs {
    #[command(flatten)]
    pub(super) act: ActArgs,
    /// Why, for the audit
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) reason: String,
}

#[derive(Args, Debug)]
pub(crate) struct DiscardArgs {
    #[command(flatten)]
    pub(super) act: ActArgs,
    /// Why, for the audit
    #[arg(long)]
    pub(super) reason: String,
}

fn time(text: &str) -> Result<Timestamp, &'static str> {
    let ago = || {
        let ago: SignedDuration = text.parse().ok().filter(|ago: &SignedDuration| !ago.is_negative())?;
        Timestamp::now().checked_sub(ago).ok()
    };
    let expected = "expected a time like 2026-01-02T03:04:05Z, or how long ago, like 2h";
    text.parse().ok().or_else(ago).ok_or(expected)
}

fn rate(text: &str) -> Result<NonZeroU32, &'static str> {
    text.strip_suffix("/s").unwrap_or(text).parse().map_err(|_| "expected events per second, like 500/s")
}
