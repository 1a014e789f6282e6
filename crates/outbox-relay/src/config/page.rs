//! The settings as the page `docs/configuration.md`, which a test keeps current.

use std::fmt::Write;

use super::ALL;
use super::contradictions::CONTRADICTIONS;
use super::reference::sections;
use crate::adapters::BUSES;
use crate::settings::About;
use crate::settings::contradictions::Contradiction;

const INTRODUCTION: &str = "\
# Configuration

<!-- Written from the declarations in crates/outbox-relay/src/config/general.rs and src/adapters; a test fails when this page is older. -->

Settings come from the environment, then from a TOML file (`--config FILE` or `OUTBOX_CONFIG`), then from the defaults
below. A variable that is set but empty counts as unset. A value that is not what a setting expects (but for
[some variables](#variables-of-the-earlier-relay)), a variable with the prefix `OUTBOX_` that is no setting, and an unknown
key in the file stop the program with exit code 2 before it does anything.

Durations are written as in Go (`250ms`, `1s`, `5m`, `1.5h`), sizes with a unit (`512KiB`, `4MiB`). Settings marked *secret*
are never printed; each can be read from a file instead, whose path is in the variable of the same name with `_FILE` at
its end (in TOML: the key with `_file` at its end). Connection strings and certificates that lie in files are read again
for each new connection (docs/operations.md).

While spans are exported the other standard `OTEL_*` variables of the exporter and the SDK (headers, limits, resource
attributes) work as well.
";

const TOGETHER: &str = "
## Settings that contradict each other

What is *refused* stops the program with exit code 2 and both names; what is *told* is a warning at the start, and one of
`doctor`. Rules about a bus's own settings hold where that bus is chosen.

| This | and this | Expected | Otherwise |
|---|---|---|---|
";

const EARLIER: &str = "
## Variables of the earlier relay

These are read by the earlier relay too, which passes over a text that it does not understand. So does this one, in the
environment and with a warning that names the variable; in a TOML file, which the earlier relay does not have, the same text
is refused. `outbox-relay check-config` shows what each setting came to and where from.

| Variable | Here |
|---|---|
";

/// What is not the same, or is not plain.
const HERE: [(&str, &str); 8] = [
    ("APP_ENV", "the same default, `development`, unless `OTEL_RESOURCE_ATTRIBUTES` has the attribute"),
    ("AUTO_MIGRATE", "`false` unless it is set: a relay's role need not own the tables"),
    ("HTTP_PORT", "0 takes a free port"),
    (
        "OTEL_ENABLED",
        "unset: only where `OTEL_EXPORTER_OTLP_ENDPOINT` is set, so that nobody without a collector loses spans",
    ),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "`host:port` alone is plaintext gRPC, as there; `https://` encrypts"),
    ("OUTBOX_MAX_ATTEMPTS", "a negative number is 0, as there; what counts as an attempt: `OUTBOX_CHARGE`"),
    ("OUTBOX_WORKERS", "batches in progress, each with a database connection, at most `OUTBOX_WORKERS_MAX`"),
    ("SERVICE_VERSION", "unset: the program's own version, where the earlier relay says `dev`"),
];

/// Those that are read in another way, or not at all.
const OTHERS: &str = "\
| `EVENT_BUS` | [its own section](#event_bus); a name that is no bus is refused |
| `EVENT_WORKERS` | not read: it is for consumers |
| `NATS_URL` | the same; `localhost` is 127.0.0.1 by default |
| `POSTGRES_DSN` | the same keywords; it has no default, and without `sslmode` the certificate of a server elsewhere must be valid, where the earlier relay sends the password to whoever answers: write `sslmode=prefer` for that |
";

fn push_earlier(page: &mut String) {
    page.push_str(EARLIER);
    let mut abouts: Vec<&About> = ALL.iter().copied().filter(|about| about.earlier).collect();
    abouts.sort_by_key(|about| about.env);
    for about in abouts {
        let here = HERE.iter().find(|(env, _)| *env == about.env).map_or("the same", |(_, here)| here);
        let _ = writeln!(page, "| `{}` | {here} |", about.env);
    }
    page.push_str(OTHERS);
}

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (section, abouts) in sections() {
        let _ = write!(page, "\n## `[{section}]`\n");
        for about in abouts {
            let key = about.key.trim_start_matches(section).trim_start_matches('.');
            let secret = if about.secret { ", *secret*" } else { "" };
            let default = about.default.map_or("no default".to_owned(), |default| format!("default `{default}`"));
            let _ = write!(page, "\n### `{}`\n\n", about.env);
            let _ = writeln!(page, "{}\n", about.help());
            let _ = writeln!(page, "Expects {}; {default}{secret}. In TOML: `{key}`.", about.expected());
        }
    }
    push_earlier(&mut page);
    page.push_str(TOGETHER);
    for rule in rules() {
        let [one, other] = rule.settings;
        let _ = writeln!(page, "| `{one}` | `{other}` | {} | {} |", rule.expected, rule.consequence.name());
    }
    page
}

/// Every rule about two settings, those of the adapters last.
fn rules() -> impl Iterator<Item = &'static Contradiction> {
    CONTRADICTIONS.iter().chain(BUSES.iter().flat_map(|bus| bus.contradictions()))
}

/// Set `UPDATE_DOCS=1` to write the page instead.
#[test]
fn the_configuration_page_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page(), "docs/configuration.md is not current: run the tests once with UPDATE_DOCS=1");
}

#[test]
fn every_default_is_a_value_of_its_setting() {
    for about in ALL.iter() {
        assert!(about.default.is_none_or(about.valid), "{}", about.env);
    }
}

#[test]
fn rules_are_about_settings_that_there_are() {
    let known = |env: &str| ALL.iter().any(|about| about.env == env);
    for rule in rules() {
        assert!(rule.settings.into_iter().all(known), "{:?}", rule.settings);
    }
}
