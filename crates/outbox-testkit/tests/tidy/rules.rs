//! Rules about one file's text.

use std::path::Path;

use crate::files::{code_lines, is_test_code, root};

pub(crate) const SLEEP: &str = concat!("sle", "ep(");
/// What makes a database slow: a fault that is tested, and nobody waits for it.
pub(crate) const SLOW_DATABASE: &str = concat!("PERFORM pg_sle", "ep(");

pub(crate) const SET_DEFAULT: &str = concat!("set_", "default(");

/// Written in two parts, as above, so that this file does not find itself.
pub(crate) const MARKERS: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
];

/// Finds what knows of bugs that somebody plants: nothing does, but the test kit and tests.
pub(crate) fn planted(path: &Path, text: &str) -> Vec<String> {
    let path = path.strip_prefix(root()).unwrap_or(path);
    if is_test_code(path) || !path.starts_with("crates") || path.starts_with("crates/outbox-testkit") {
        return Vec::new();
    }
    let is_named = |line: &&str| ["planted", "seeded", "simulation::"].iter().any(|name| line.contains(name));
    text.lines().filter(is_named).map(|line| format!("knows of planted bugs: `{}`", line.trim())).collect()
}

/// Finds sleeps, except on a paused clock: there they move it and take no time.
pub(crate) fn sleeps(text: &str) -> Vec<String> {
    let mut paused = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.contains("#[tokio::test") || line.contains("#[test]") {
            paused = line.contains("start_paused = true");
        }
        if line.replace(SLOW_DATABASE, "").contains(SLEEP) && !paused {
            found.push(format!("a test that sleeps: `{}`", line.trim()));
        }
    }
    found
}

/// Finds a subscriber that a neighbour in another thread can make deaf; `outbox_testkit::listen` says how.
pub(crate) fn easily_deaf(path: &Path, text: &str) -> Vec<String> {
    if path.ends_with("outbox-testkit/src/listen.rs") {
        return Vec::new();
    }
    let sets = text.lines().filter(|line| line.contains(SET_DEFAULT));
    sets.map(|line| format!("not through outbox_testkit::listen: `{}`", line.trim())).collect()
}

/// What carries trace context across a hop. Written in two parts, as above.
pub(crate) const PROPAGATION: [&str; 9] = [
    concat!("TextMap", "Propagator"),
    concat!("TextMapComposite", "Propagator"),
    concat!("TraceContext", "Propagator"),
    concat!("Baggage", "Propagator"),
    concat!("PROPA", "GATOR"),
    concat!("extract_with", "_context"),
    concat!("inject", "_context"),
    concat!("text_map", "_propagator"),
    concat!("OpenTelemetry", "SpanExt"),
];
/// The only functions that may.
const CARRY_CONTEXT: [&str; 2] = ["pub fn inject_carrier(", "pub fn resume_from_carrier("];

/// Finds a second path of trace context: code that touches the propagator, or a span's context, outside of the two
/// functions. In their own file imports and the propagator itself stand beside them.
pub(crate) fn second_paths_of_context(path: &Path, text: &str) -> Vec<String> {
    let own = path.ends_with("gamemesh-outbox/src/carrier.rs");
    let (mut carries, mut defines) = (false, false);
    let mut found = Vec::new();
    for line in text.lines() {
        carries |= own && CARRY_CONTEXT.iter().any(|function| line.starts_with(function));
        defines |= own && ["use ", "static "].iter().any(|item| line.starts_with(item));
        if !(carries || defines) && PROPAGATION.iter().any(|name| line.contains(name)) {
            found.push(format!("a second path of trace context: `{}`", line.trim()));
        }
        carries &= line != "}";
        defines &= !(line.is_empty() || line.ends_with(';') && !line.starts_with(' '));
    }
    found
}

/// Finds a `select!` that takes the branches in any order: no run could be repeated.
pub(crate) fn chances(text: &str) -> Vec<String> {
    let code: String = code_lines(text).collect::<Vec<_>>().join(" ");
    let bodies = code.split("select! {").skip(1).map(str::trim_start);
    bodies.filter(|body| !body.starts_with("biased;")).map(|body| format!("a select! by chance: {body:.40}")).collect()
}

pub(crate) fn left_over_markers(text: &str) -> Vec<String> {
    let marked = |line: &&str| MARKERS.iter().any(|marker| line.contains(marker));
    text.lines().filter(marked).map(|line| format!("left for later: `{}`", line.trim())).collect()
}

/// Finds a crate to which the workspace's lints do not apply.
pub(crate) fn without_lints(manifest: &str) -> Option<String> {
    let is_crate = manifest.contains("[package]");
    (is_crate && !manifest.contains("[lints]\nworkspace = true\n")).then(|| "no [lints] workspace = true".to_owned())
}

pub(crate) fn unsafe_allowed(text: &str) -> Vec<String> {
    let lint = concat!("unsafe", "_code)");
    let named = text.lines().filter(|line| line.contains("allow(") && line.contains(lint));
    named.map(|line| format!("unsafe code: `{}`", line.trim())).collect()
}

/// Says whether a text has this word, in upper or lower case, as a word or a part of a name.
pub(crate) fn names(text: &str, word: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(|c: char| c.is_ascii_alphabetic()))
}

/// Finds what a crate's own code reads at build time from above its folder: `cargo package` leaves that behind.
pub(crate) fn embedded_from_outside(path: &Path, text: &str) -> Vec<String> {
    let parts: Vec<&str> = path.strip_prefix(root()).unwrap_or(path).iter().filter_map(|part| part.to_str()).collect();
    // Examples are not published.
    let ["crates", _, "src", below @ ..] = parts.as_slice() else { return Vec::new() };
    let reads = text.lines().filter(|line| ["include_str!(", "include_bytes!("].iter().any(|read| line.contains(read)));
    let outside = reads.filter(|line| line.matches("../").count() > below.len());
    outside.map(|line| format!("outside of the crate: {}", line.trim())).collect()
}
