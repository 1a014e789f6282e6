//! The checks as the page `docs/doctor.md`, which a test keeps current.

use std::collections::BTreeSet;
use std::fmt::Write;

use gamemesh_outbox::diagnosis::Check;

use crate::adapters::{BUSES, STORES};

const INTRODUCTION: &str = "\
# Doctor

<!-- Written by crates/outbox-relay/src/commands/doctor/page.rs; a test fails when this page is older. -->

```sh
outbox-relay status           # what is in the outbox, who relays it, and whether store and bus can be used
outbox-relay doctor           # what is wrong with the servers, what it risks, and what to paste
outbox-relay doctor --json
```

Both take the relay's own settings from its environment and only look: they create no stream and change no row. Both also
ask the relay that serves its endpoints on this machine (`HTTP_PORT`, `OUTBOX_HTTP_ADDRESS`), or the one that
`--relay http://host:8085` names, for its own verdict and its troubles: it knows what no look from outside can see. Where none
answers, a line says so.

`status` exits with 0 when the store and the bus can be used and with 1 when one of them cannot, or when the relay that was
asked is not ready. `--json` prints one object:
`schema_version`, `pending` (of it `due` and `waiting`), `failing` (those of `pending` that were charged three attempts or more),
`oldest_failing` (when it was inserted), `failing_topics` (the largest, each with the id and the error of one event), `due_later`
(those that nobody has tried yet and that are due only in more than a minute, from `due_later_first` to `due_later_last`),
`from_the_future` (those of them that were inserted, as they say, at a time that has not come), `failed`, `published` (rows that
are kept), `oldest_due_age_seconds`, `oldest_dead_letter` (when it was inserted), `topics` (the largest, `--topics` of them, with `oldest_due_age_seconds`), `relays`
(connections to PostgreSQL named `outbox-relay`, by address), `store` and `bus`, each with `reachable` and `error`, and `relay`
with `asked` (where), `ready`, `reason` and `troubles`, which are `null` where none answers. Of a store that cannot be used the
counts are left out.

`doctor` exits with 0 when it found no error and with 1 when it found one; warnings are risks to know and to choose. For each
check it says what it found; where that is not `ok`, also what it risks and the exact fix: SQL for `psql`, a command of the
bus's own client, lines for a server's configuration, or a setting of the relay. Nothing is printed that could be a secret: of
other people's queries only the words before the first literal are shown. `--json` prints `findings`, each with `check`,
`severity`, `found`, `risk` and `fix`, and the numbers of `errors` and `warnings`.

What is certain and what is a guess:

- A pooler in transaction mode is proven: two connections that are open at the same time shared a backend. A pooler in
  session mode is guessed from a backend that is older than the connection; an idle one with a fresh backend goes unnoticed.
- Without the role `pg_monitor` other roles' transactions have no visible age. They are then listed only when they hold back
  more than 100,000 transactions.
- Encryption is what the database says about its own end; behind a pooler that is the way from the pooler on.
- Clock skew is measured to within half the time that a question takes. The relay itself decides nothing by its own clock.
- Whether NATS syncs to its disk is told on its monitoring port alone: set `OUTBOX_NATS_MONITORING_URL`, without TLS.
";

/// Everything that can be examined, by what it belongs to.
fn checks() -> impl Iterator<Item = (&'static str, &'static [&'static Check])> {
    let stores = STORES.iter().map(|store| (store.about().title, store.about().checks));
    let buses = BUSES.iter().map(|bus| (bus.about().title, bus.about().checks));
    let own = [("The relay's settings", &super::settings::CHECKS[..]), ("A running relay", &super::relay::CHECKS[..])];
    stores.chain(buses).chain(own)
}

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (title, checks) in checks() {
        let _ = write!(page, "\n## {title}\n\n| Check | Looks at | Risk |\n|---|---|---|\n");
        for check in checks {
            let _ = writeln!(page, "| `{}` | {} | {} |", check.name, check.looks_at, check.risk);
        }
    }
    page
}

/// Set `UPDATE_DOCS=1` to write the page instead.
#[test]
fn the_page_of_checks_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/doctor.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page(), "docs/doctor.md is not current: run the tests once with UPDATE_DOCS=1");
}

#[test]
fn every_check_has_a_name_of_its_own() {
    let names: Vec<&str> = checks().flat_map(|(_, checks)| checks.iter().map(|check| check.name)).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}
