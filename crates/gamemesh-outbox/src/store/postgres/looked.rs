use super::place::{QueuePlace, RowVersion};
use super::server_time::ServerTime;
use super::table::TableRow;
use crate::event::Event;

/// What a look for due events came to: what it claimed, and what it saw beyond that.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) events: Vec<Event>,
    /// Where the rows lie, in the order of the events.
    pub(super) versions: Vec<RowVersion>,
    /// Where the next claim goes on, if there is any event.
    pub(super) last: Option<QueuePlace>,
    /// From where on rows are held that nothing happens to. Others pass them by until the transaction ends.
    pub(super) beyond: Option<QueuePlace>,
    pub(super) more_due: bool,
}

impl Looked {
    pub(super) fn claim(&mut self, row: &impl TableRow, event: Event) {
        self.versions.push(row.version());
        self.last = Some(row.place());
        self.events.push(event);
    }

    /// Returns what the wait before a look from `from` on found, and holds, if the look may not have come to it: it lies
    /// behind, or others came before it.
    pub(super) fn not_reached(&self, from: QueuePlace, found: Option<ServerTime>) -> Option<QueuePlace> {
        let found = QueuePlace { at: found?, ..QueuePlace::START };
        let ahead = self.more_due && self.last.is_none_or(|last| last.at <= found.at);
        (ahead || found < from).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_wait_holds_is_claimed_or_looked_for_again() {
        let place = |micros| QueuePlace { at: ServerTime::at(micros), ..QueuePlace::START };
        let looked = |last, more_due| Looked { last: Some(place(last)), more_due, ..Looked::default() };
        let found = Some(ServerTime::at(7));
        assert_eq!(looked(7, false).not_reached(QueuePlace::START, found), None, "all that was due is claimed");
        assert_eq!(looked(8, true).not_reached(QueuePlace::START, found), None, "the claim went further");
        assert_eq!(looked(6, true).not_reached(QueuePlace::START, found), Some(place(7)), "others came before it");
        assert_eq!(looked(7, true).not_reached(QueuePlace::START, found), Some(place(7)), "perhaps it is the next");
        assert_eq!(looked(9, false).not_reached(place(8), found), Some(place(7)), "it lies behind");
        assert_eq!(looked(9, true).not_reached(QueuePlace::START, None), None);
    }
}
