use std::time::Duration;

use super::place::{Part, QueuePlace};

/// A bite may take this long. It is a part of the queue that is looked through in one statement.
pub(super) const BITE_MAX: Duration = Duration::from_millis(250);
/// How long a bite may take on the server before it is given up: that it was too large is worth knowing, and others wait.
pub(super) const BITE_WITHIN: Duration = Duration::from_secs(1);
/// How much of the queue the first bite takes, in microseconds between two times of being due.
const WIDTH_FIRST: i64 = 1_000_000;
/// The narrowest bite.
const WIDTH_MIN: i64 = 1;
/// The widest bite. The next one takes everything that is left: nothing is older than 35 years.
const WIDTH_MAX: i64 = WIDTH_FIRST << 30;

/// The way back through a queue that is too dear to look through at once.
///
/// Millions of dead index entries, which an old transaction keeps alive, may lie between its start and its newest events. They
/// are walked over in bites, from the newest to the oldest, with rests between. What is due among them is found in this way,
/// and what comes newly does not wait for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Sweep {
    /// Where it began.
    newest: QueuePlace,
    /// Everything from here to `newest` was looked through.
    until: QueuePlace,
    /// How much of the queue the next bite takes, in microseconds.
    width: i64,
    /// How long all bites took together.
    took: Duration,
}

/// What comes after a bite.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum After {
    /// Another one.
    Bite(Sweep),
    /// The start is reached, and the whole way took no longer than one bite may.
    Cheap(Duration),
}

impl Sweep {
    /// Begins a way back from `newest`.
    pub(super) fn from(newest: QueuePlace) -> Self {
        Self { newest, until: newest, width: WIDTH_FIRST, took: Duration::ZERO }
    }

    /// Returns what is looked through next.
    pub(super) fn bite(&self) -> Part {
        let from = if self.width > WIDTH_MAX {
            QueuePlace::START
        } else {
            QueuePlace { at: self.until.at.before(self.width), ..QueuePlace::START }
        };
        Part { from, until: Some(self.until) }
    }

    /// Goes on behind a bite that took so long. It is taken once more where it left something; `newest` is where a new way
    /// back would begin.
    pub(super) fn taken(mut self, took: Duration, left: bool, newest: QueuePlace) -> After {
        self.took += took;
        if left {
            return After::Bite(self);
        }
        let bite = self.bite();
        self.until = bite.from;
        match took {
            _ if took > BITE_MAX => self.narrow(2),
            _ if took < BITE_MAX / 16 => self.widen(8),
            _ if took < BITE_MAX / 4 => self.widen(2),
            _ => {}
        }
        match bite.from {
            QueuePlace::START if self.took <= BITE_MAX => After::Cheap(self.took),
            QueuePlace::START => After::Bite(Self { width: WIDTH_FIRST, ..Self::from(newest) }),
            _ => After::Bite(self),
        }
    }

    /// The bite was not over in time.
    pub(super) fn too_large(&mut self) {
        self.took += BITE_WITHIN;
        if self.width == WIDTH_MIN {
            // What became due in the very same microsecond cannot be divided. The rest goes on without it.
            self.until = self.bite().from;
        }
        self.narrow(4);
    }

    /// Takes a part of the way once more, up to `place`: something there was given back.
    pub(super) fn again(&mut self, place: QueuePlace) {
        self.until = self.until.max(place).min(self.newest);
    }

    fn widen(&mut self, by: i64) {
        self.width = self.width.saturating_mul(by).min(2 * WIDTH_MAX);
    }

    fn narrow(&mut self, by: i64) {
        self.width = (self.width / by).max(WIDTH_MIN);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::server_time::ServerTime;
    use super::*;

    fn place(micros: i64) -> QueuePlace {
        QueuePlace { at: ServerTime::at(micros), id: Uuid::nil() }
    }

    const NEWEST: i64 = 800_000_000_000_000;

    fn next(sweep: Sweep, took: Duration) -> Sweep {
        match sweep.taken(took, false, place(NEWEST)) {
            After::Bite(sweep) => sweep,
            After::Cheap(_) => panic!("another bite"),
        }
    }

    #[test]
    fn cheap_bites_grow_until_the_start_is_reached() {
        let mut sweep = Sweep::from(place(NEWEST));
        let (mut until, mut bites) = (place(NEWEST), 0);
        loop {
            let bite = sweep.bite();
            assert_eq!(bite.until, Some(until), "nothing is left out");
            (until, bites) = (bite.from, bites + 1);
            match sweep.taken(Duration::from_millis(1), false, place(NEWEST)) {
                After::Bite(after) => sweep = after,
                After::Cheap(_) => break,
            }
        }
        assert_eq!(until, QueuePlace::START);
        assert!((8..20).contains(&bites), "{bites}");
    }

    #[test]
    fn dear_bites_shrink_and_a_dear_way_begins_anew() {
        let mut sweep = Sweep::from(place(NEWEST));
        for _ in 0..10 {
            sweep = next(sweep, Duration::ZERO);
        }
        let width = sweep.width;
        sweep = next(sweep, Duration::from_millis(300));
        assert_eq!(sweep.width, width / 2);
        sweep.too_large();
        assert_eq!(sweep.width, width / 8);
        while sweep.width > WIDTH_MIN {
            sweep.too_large();
        }
        let until = sweep.until;
        sweep.too_large();
        assert_eq!(sweep.until.at, until.at.before(1), "an instant that is too dear is left out");
        while sweep.until != place(NEWEST) {
            sweep = next(sweep, Duration::ZERO);
        }
        assert_eq!(sweep, Sweep::from(place(NEWEST)), "from the newest once more");
    }

    #[test]
    fn a_bite_that_leaves_something_is_taken_again() {
        let sweep = next(next(Sweep::from(place(NEWEST)), Duration::ZERO), Duration::ZERO);
        let After::Bite(mut again) = sweep.taken(Duration::ZERO, true, place(NEWEST)) else { panic!("another bite") };
        assert_eq!(again.bite(), sweep.bite());
        again.again(place(NEWEST - 5));
        assert_eq!(again.bite().until, Some(place(NEWEST - 5)));
    }
}
