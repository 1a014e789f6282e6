use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use gamemesh_outbox::store::Status;
use gamemesh_outbox::store::dead_letters::{self, AuditEntry, DeadLetter, DeadLetters, Detail, Filter, Group, Page};
use serde_json::json;

use super::args::{ListArgs, ShowArgs};
use super::{clean, grouped};
use crate::output::print;
use crate::report::CommandError;

pub(super) async fn list(store: &dyn DeadLetters, args: ListArgs) -> Result<(), CommandError> {
    let filter = args.filter.filter();
    filter.check().map_err(|invalid| CommandError::usage(invalid.to_string()))?;
    if args.group {
        return groups(store, &filter, args.limit, args.json).await;
    }
    let page = Page { limit: args.limit, after: args.after };
    let listed = dead_letters::list(store, &filter, &page, None).await?;
    if args.json {
        return print_json(&json!(listed));
    }
    print(&letters_table(&listed.letters))?;
    if let Some(next) = listed.next {
        eprintln!("More: --after {next}");
    }
    Ok(())
}

async fn groups(store: &dyn DeadLetters, filter: &Filter, limit: u32, as_json: bool) -> Result<(), CommandError> {
    let groups = store.groups(filter, limit).await?;
    if as_json {
        return print_json(&json!(groups));
    }
    print(&groups_table(&groups.groups))?;
    if !groups.complete {
        eprintln!("The newest {} dead letters were looked at; there may be more.", grouped(groups.examined));
    }
    Ok(())
}

pub(super) async fn show(store: &dyn DeadLetters, args: ShowArgs) -> Result<(), CommandError> {
    let (detail, history) = (store.show(args.id).await?, store.history(args.id).await?);
    if detail.is_none() && history.is_empty() {
        return Err(CommandError::failure("nothing to show", format!("there is no event {}", args.id)));
    }
    if args.json {
        return print_json(&json!({"event": detail, "history": history}));
    }
    let event = detail.map_or_else(|| format!("Event {} is gone.\n", args.id), |detail| describe(&detail));
    print(&format!("{event}{}", describe_history(&history)))
}

pub(super) fn print_json(value: &serde_json::Value) -> Result<(), CommandError> {
    print(&format!("{value:#}\n"))
}

pub(super) fn letters_table(letters: &[DeadLetter]) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let mut table = table(["Id", "Inserted", "Topic", "Type", "Attempts", "Error"]);
    for letter in letters {
        table.add_row([
            letter.id.to_string(),
            time(letter.created_at),
            clean(&letter.topic),
            clean(&letter.event_type),
            letter.attempt_count.to_string(),
            clean(&letter.last_error),
        ]);
    }
    format!("{table}\n")
}

pub(super) fn groups_table(groups: &[Group]) -> String {
    if groups.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let mut table = table(["Rows", "Error", "Oldest", "Newest"]);
    for group in groups {
        table.add_row([grouped(group.count), clean(&group.error_class), time(group.oldest), time(group.newest)]);
    }
    if let Some(column) = table.column_mut(0) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    // Without a terminal there is no width, and lines stay whole for other programs.
    table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table
}

fn time(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn describe(detail: &Detail) -> String {
    let letter = &detail.letter;
    let mut fields = vec![
        ("Id", letter.id.to_string()),
        ("State", detail.status.as_str().to_owned()),
        ("Topic", clean(&letter.topic)),
        ("Type", clean(&letter.event_type)),
        ("Key", letter.event_key.as_deref().map(clean).unwrap_or_default()),
        ("Inserted", time(letter.created_at)),
        ("Due", if detail.status == Status::Pending { time(letter.last_attempt_by) } else { String::new() }),
        ("Published", detail.published_at.map(time).unwrap_or_default()),
        ("Attempts", letter.attempt_count.to_string()),
        ("Last error", clean(&letter.last_error)),
        ("Headers", clean(&detail.headers)),
        ("Trace", clean(&detail.carrier)),
    ];
    fields.retain(|(_, value)| !value.is_empty() && value != "{}");
    let fields: String = fields.iter().map(|(name, value)| format!("{:<12}{value}\n", format!("{name}:"))).collect();
    let cut = if detail.payload.len() as u64 == detail.payload_bytes { "" } else { ", cut" };
    format!("{fields}Payload ({} bytes{cut}):\n{}\n", grouped(detail.payload_bytes), clean(&detail.payload))
}

fn describe_history(history: &[AuditEntry]) -> String {
    let line = |entry: &AuditEntry| {
        let reason = if entry.reason.is_empty() { String::new() } else { format!(": {}", clean(&entry.reason)) };
        format!("  {} {} by {}{reason}\n", time(entry.at), clean(&entry.action), clean(&entry.actor))
    };
    let lines: String = history.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("History:\n{lines}") }
}
