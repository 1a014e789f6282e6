use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use gamemesh_outbox::store::StoreErrorKind;
use gamemesh_outbox::store::dead_letters::{
    self, Action, Count, DeadLetters, Options, Page, Report, Request, act, duplicate_warning,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::{ActArgs, DiscardArgs, RequeueArgs};
use super::grouped;
use super::read::{groups_table, letters_table, print_json};
use crate::output::print;
use crate::report::CommandError;

/// What a dry run shows of the letters.
const SAMPLES: u32 = 5;

pub(super) async fn requeue(
    store: &dyn DeadLetters,
    args: RequeueArgs,
    duplicate_window: Duration,
) -> Result<(), CommandError> {
    change(store, Action::Requeue, args.act, &args.reason, duplicate_window).await
}

pub(super) async fn discard(store: &dyn DeadLetters, args: DiscardArgs) -> Result<(), CommandError> {
    change(store, Action::Discard, args.act, &args.reason, Duration::ZERO).await
}

async fn change(
    store: &dyn DeadLetters,
    action: Action,
    args: ActArgs,
    reason: &str,
    duplicate_window: Duration,
) -> Result<(), CommandError> {
    let options = Options { per_second: args.rate, ..Options::default() };
    let (all, as_json, dry_run, yes) = (args.all, args.json, args.dry_run, args.yes);
    let actor = args.actor.unwrap_or_else(current_user);
    let filter = args.filter.filter();
    let request = match all {
        true => Request::everything(action, &actor, reason),
        false => Request::new(action, filter, &actor, reason),
    };
    let mut request = request.map_err(|error| {
        CommandError::usage(error.to_string()).hint("see `--help`; `--all` means every dead letter, `--actor` is you")
    })?;
    request.duplicate_window = duplicate_window;

    let count = dead_letters::count(store, request.filter(), duplicate_window, None, None).await?.count;
    if let Some(warning) = duplicate_warning(count.recent, duplicate_window) {
        eprintln!("Warning: {warning}");
    }
    if dry_run {
        return rehearse(store, &request, count, as_json).await;
    }
    if count.letters > 0 && !yes {
        confirm(action, count.letters)?;
    }
    let report = carry_out(store, &request, options, count.letters).await?;
    tell(action, &report, as_json)
}

async fn rehearse(store: &dyn DeadLetters, request: &Request, count: Count, as_json: bool) -> Result<(), CommandError> {
    let groups = store.groups(request.filter(), SAMPLES).await?.groups;
    let samples = dead_letters::list(store, request.filter(), &Page::first(SAMPLES), None).await?.letters;
    if as_json {
        let action = request.action();
        return print_json(&json!({
            "action": action, "dry_run": true, "letters": count.letters, "recent": count.recent, "groups": groups,
            "samples": samples,
        }));
    }
    let would = format!("would {} {} events; nothing was changed\n", request.action().as_str(), grouped(count.letters));
    if count.letters == 0 {
        return print(&would);
    }
    print(&format!("{would}By error:\n{}The newest:\n{}", groups_table(&groups), letters_table(&samples)))
}

/// Asks the person at the terminal. Without one, nobody has agreed.
fn confirm(action: Action, letters: u64) -> Result<(), CommandError> {
    let what = format!("{} {} events", action.as_str(), grouped(letters));
    let mut input = std::io::stdin().lock();
    if !std::io::stdin().is_terminal() {
        let problem = format!("expected --yes to {what}: there is nobody to ask");
        return Err(CommandError::usage(problem).hint("`--dry-run` shows what would happen"));
    }
    eprint!("Really {what}? Type yes: ");
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(|error| CommandError::failure("cannot read the answer", error))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(CommandError::failure("nothing was changed", "the answer was not yes")),
    }
}

async fn carry_out(
    store: &dyn DeadLetters,
    request: &Request,
    options: Options,
    letters: u64,
) -> Result<Report, CommandError> {
    // It draws on standard error, and only on a terminal.
    let progress = ProgressBar::new(letters);
    let style = "{human_pos} of {human_len} {wide_bar} {per_sec} {eta}";
    progress.set_style(ProgressStyle::with_template(style).expect("a valid template"));
    let done = act(store, request, options, |_, so_far| progress.set_position(so_far.changed)).await;
    progress.finish_and_clear();
    done.map_err(|stopped| {
        let changed = grouped(stopped.report.changed);
        let rest = match stopped.source.kind() {
            StoreErrorKind::Unavailable | StoreErrorKind::Busy => "; the same command does the rest",
            StoreErrorKind::NotGranted => "; this takes the role outbox_operator (docs/security-roles.md)",
            StoreErrorKind::Unusable | StoreErrorKind::Refused => "",
        };
        CommandError::from(stopped.source).hint(format!("{changed} events were changed before{rest}"))
    })
}

fn tell(action: Action, report: &Report, as_json: bool) -> Result<(), CommandError> {
    let done = match action {
        Action::Requeue => "requeued",
        Action::Discard => "discarded",
    };
    if as_json {
        return print_json(&json!({"action": action, "dry_run": false, "report": report}));
    }
    print(&format!("{done} {} events (request {})\n", grouped(report.changed), report.request_id))?;
    for id in &report.untouched {
        eprintln!("Not touched: {id} is not FAILED, or the filter does not mean it");
    }
    Ok(())
}

/// Returns who runs this, as far as the system knows.
fn current_user() -> String {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let user = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "unknown".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| variable("HOSTNAME"));
    match host.as_deref().map(str::trim).filter(|host| !host.is_empty()) {
        Some(host) => format!("{user}@{host}"),
        None => user,
    }
}
