//! What is in trouble now, with since when and why: the one list that every surface reads from.
//!
//! A trouble is small: one route, one event, one row. What stops everything is an outage, and is known to the breakers of the
//! relay; what an event did wrong is in its row. Each entry ends when what it tells of works again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;

/// The name of the trouble of kind [`TroubleKind::Outcome`] that concerns every event: no outcome at all can be written.
pub const ALL_OUTCOMES: &str = "all";

/// The name of the trouble of kind [`TroubleKind::Pruning`] that concerns every row: none can be removed.
pub(crate) const ALL_ROWS: &str = "outbox_events";

/// The most troubles of one kind that are kept, beside that of all: a page that lists more helps nobody.
const KEPT_MAX: usize = 256;

/// What a trouble is about.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum TroubleKind {
    /// A topic and type for which the bus has no place, or takes nothing; named `topic type`.
    Route,
    /// A place on the bus, such as a stream, that takes nothing, or in which what was acknowledged may vanish; named as the
    /// bus names it.
    Place,
    /// An event whose outcome the database does not let itself be told; named by its id.
    Outcome,
    /// A published row that does not let itself be removed, named by its id; `outbox_events` where none does.
    Pruning,
    /// Events that are due and that somebody else's transaction holds; named by that.
    Held,
    /// Something that the relay tells, and that nobody takes: the log, spans; named by what it is.
    Telling,
}

impl TroubleKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Route, Self::Place, Self::Outcome, Self::Pruning, Self::Held, Self::Telling];

    /// Returns its name in metrics and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Place => "place",
            Self::Outcome => "outcome",
            Self::Pruning => "pruning",
            Self::Held => "held",
            Self::Telling => "telling",
        }
    }
}

/// One trouble.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trouble {
    /// What it is about.
    pub kind: TroubleKind,
    /// Which one.
    pub name: String,
    /// When it began, by the clock of this machine: for people to read.
    pub since: Timestamp,
    /// Why, in one line without secrets.
    pub reason: String,
}

impl Trouble {
    /// Returns what to sort by: of each kind what concerns all comes first.
    pub(crate) fn rank(&self) -> (TroubleKind, bool, &str) {
        (self.kind, !concerns_all(&self.name), &self.name)
    }
}

fn concerns_all(name: &str) -> bool {
    [ALL_OUTCOMES, ALL_ROWS].contains(&name)
}

/// The troubles of one relay. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Mutex<State>>);

type Key = (TroubleKind, String);
/// Since when, and why.
type Known = (Timestamp, String);

#[derive(Debug, Default)]
struct State {
    known: BTreeMap<Key, Known>,
}

impl Troubles {
    /// Notes a trouble, or a new reason for one that is known. Returns whether it is new, and so worth a line of the log;
    /// past 256 of one kind nothing is noted, and nothing is new, but what concerns all.
    pub fn begin(&self, kind: TroubleKind, name: &str, reason: &str) -> bool {
        let mut state = self.lock();
        let key = (kind, name.to_owned());
        if let Some((_, known)) = state.known.get_mut(&key) {
            reason.clone_into(known);
            return false;
        }
        // What concerns all is worth more than any of them, and the verdict asks for it.
        if state.count(kind) >= KEPT_MAX && !concerns_all(name) {
            return false;
        }
        state.known.insert(key, (Timestamp::now(), reason.to_owned()));
        true
    }

    /// Notes that it is over. Returns whether it was known.
    pub fn end(&self, kind: TroubleKind, name: &str) -> bool {
        let mut state = self.lock();
        // Most of the time there is none, and nothing is to be allocated.
        !state.known.is_empty() && state.known.remove(&(kind, name.to_owned())).is_some()
    }

    /// Lists them, by kind and name.
    pub fn list(&self) -> Vec<Trouble> {
        let state = self.lock();
        let trouble = |((kind, name), (since, reason)): (&Key, &Known)| Trouble {
            kind: *kind,
            name: name.clone(),
            since: *since,
            reason: reason.clone(),
        };
        state.known.iter().map(trouble).collect()
    }

    /// Counts those of one kind.
    pub fn count(&self, kind: TroubleKind) -> usize {
        self.lock().count(kind)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

impl State {
    fn count(&self, kind: TroubleKind) -> usize {
        self.known.keys().filter(|(known, _)| *known == kind).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_new_once_keeps_its_begin_and_ends() {
        let troubles = Troubles::default();
        assert!(troubles.begin(TroubleKind::Route, "events.player registered", "no stream"));
        let since = troubles.list()[0].since;
        assert!(!troubles.begin(TroubleKind::Route, "events.player registered", "stream full"));
        let [trouble] = &troubles.list()[..] else { panic!("one trouble") };
        assert_eq!((trouble.since, trouble.reason.as_str()), (since, "stream full"));
        assert!(!troubles.end(TroubleKind::Outcome, "events.player registered"), "another kind");
        assert!(troubles.end(TroubleKind::Route, "events.player registered"));
        assert!(!troubles.end(TroubleKind::Route, "events.player registered"));
        assert_eq!(troubles.list(), []);
    }

    #[test]
    fn what_is_kept_is_bounded_for_each_kind() {
        let troubles = Troubles::default();
        for number in 0..KEPT_MAX + 10 {
            troubles.begin(TroubleKind::Outcome, &number.to_string(), "no");
        }
        assert_eq!(troubles.count(TroubleKind::Outcome), KEPT_MAX);
        assert!(troubles.begin(TroubleKind::Outcome, ALL_OUTCOMES, "no"), "what concerns all is told all the same");
        assert!(troubles.begin(TroubleKind::Route, "events.a b", "no"), "one kind takes no room of another's");
    }
}
