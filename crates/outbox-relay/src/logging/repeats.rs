//! What is said again and again is said so often, and then counted: one cause can concern a hundred thousand events.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Metadata;
use tracing::callsite::Identifier;

use super::json::JsonLines;

/// Lines of one place in the code that are written in a [`SPAN`].
const REPEATED_MAX: u32 = 100;
const SPAN: Duration = Duration::from_secs(10);

/// How often each place has spoken.
#[derive(Default)]
pub(super) struct Repeats(Mutex<HashMap<Identifier, Repeat>>);

struct Repeat {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Repeats {
    /// Says whether a place may have another line; if so, how many were left out before.
    pub(super) fn admit(&self, place: Identifier, now: Instant) -> Option<u64> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let repeat = places.entry(place).or_insert(Repeat { since: now, lines: 0, left_out: 0 });
        if now.duration_since(repeat.since) >= SPAN {
            *repeat = Repeat { since: now, lines: 0, left_out: repeat.left_out };
        }
        if repeat.lines < REPEATED_MAX {
            repeat.lines += 1;
            return Some(std::mem::take(&mut repeat.left_out));
        }
        repeat.left_out += 1;
        None
    }
}

/// Writes the line that says how many were left out. Not an event: it stands right before the next line of its kind.
pub(super) fn left_out(json: Option<&JsonLines>, metadata: &Metadata<'_>, lines: u64) -> String {
    const MESSAGE: &str = "lines like the next one were left out";
    match json {
        None => {
            let (now, level, target) = (jiff::Timestamp::now(), metadata.level(), metadata.target());
            format!("{now:.6} {level:>5} {target}: {MESSAGE} lines={lines}\n")
        }
        Some(json) => json.line(metadata, MESSAGE, |fields| fields.entry("lines", &lines)),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Callsite;

    use super::*;

    #[test]
    fn a_place_that_repeats_itself_is_cut_short_and_leaves_the_others_alone() {
        let place = |callsite: &'static dyn Callsite| callsite.metadata().callsite();
        let (one, other) = (place(callsite()), place(another()));
        let (repeats, began) = (Repeats::default(), Instant::now());
        for _ in 0..REPEATED_MAX {
            assert_eq!(repeats.admit(one.clone(), began), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(repeats.admit(one.clone(), began), None);
        }
        assert_eq!(repeats.admit(other, began), Some(0));
        assert_eq!(repeats.admit(one.clone(), began + SPAN), Some(7), "told with the next one");
        assert_eq!(repeats.admit(one, began + SPAN), Some(0));
    }

    fn callsite() -> &'static dyn Callsite {
        tracing::callsite! { name: "one", kind: tracing::metadata::Kind::EVENT, fields: }
    }

    fn another() -> &'static dyn Callsite {
        tracing::callsite! { name: "other", kind: tracing::metadata::Kind::EVENT, fields: }
    }

    #[test]
    fn what_was_left_out_is_told_in_the_format_of_the_log() {
        let metadata = callsite().metadata();
        let lines = JsonLines::of("shop");
        let json: serde_json::Value = serde_json::from_str(&left_out(Some(&lines), metadata, 7)).unwrap();
        assert_eq!((&json["lines"], &json["service"]), (&7.into(), &"shop".into()));
        assert!(left_out(None, metadata, 7).ends_with("lines like the next one were left out lines=7\n"));
    }
}
