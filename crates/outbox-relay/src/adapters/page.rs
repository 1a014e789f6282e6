//! The buses and stores as the page `docs/buses.md`, which a test keeps current.

use std::fmt::Write;

use super::{BUSES, STORES, unambiguous};
use crate::settings::About;

const INTRODUCTION: &str = "\
# Buses and stores

<!-- Written by crates/outbox-relay/src/adapters/page.rs; a test fails when this page is older. -->

`EVENT_BUS` chooses the bus, the scheme of `DATABASE_URL` the store. A build may leave
some of them out (README has the features). Where a bus puts an event, and how it looks there, is in
[outbox.md](outbox.md#what-arrives); what `doctor` looks at in [doctor.md](doctor.md).
";

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for bus in BUSES {
        let about = bus.about();
        let _ = write!(page, "\n## {}\n\n`EVENT_BUS={}`. ", about.title, unambiguous(*bus));
        let _ = writeln!(page, "What an acknowledgement means:\n\n{}", about.acknowledgement.trim_end());
        push_settings(&mut page, bus.settings());
    }
    for store in STORES {
        let schemes: Vec<String> = store.schemes().iter().map(|scheme| format!("`{scheme}://`")).collect();
        let _ = write!(page, "\n## {}\n\n`DATABASE_URL` with {}.", store.about().title, schemes.join(" or "));
        page.push('\n');
        push_settings(&mut page, store.settings());
    }
    page
}

fn push_settings(page: &mut String, settings: &[&About]) {
    let names: Vec<String> = settings.iter().map(|about| format!("`{}`", about.env)).collect();
    if !names.is_empty() {
        let _ = writeln!(page, "\nSettings ([configuration.md](configuration.md)): {}.", names.join(", "));
    }
}

/// Set `UPDATE_DOCS=1` to write the page instead.
#[test]
fn the_page_of_buses_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/buses.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page(), "docs/buses.md is not current: run the tests once with UPDATE_DOCS=1");
}
