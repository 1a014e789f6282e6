//! What to do about a receipt: one pure function, and the only place that decides.

use crate::bus::BusErrorKind;

/// What the relay does with one event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Stored by the bus: done.
    Publish,
    /// The event's own fault: count an attempt, wait, and in the end set it aside.
    Charge,
    /// Perhaps stored while its neighbours certainly were: wait out of their way, count nothing, send it again.
    Defer,
    /// The bus's fault: give it back untouched and slow the relay down.
    Hold,
    /// Its route's fault: give it back untouched and leave the route alone for a while.
    PauseRoute,
}

/// Decides what to do with one event.
///
/// `failure` is the kind of its failed receipt, `None` when it was acknowledged. `others_acked` says whether the bus
/// acknowledged any event of the same batch: then a lost answer is this event's trouble, otherwise it is an outage.
///
/// | receipt | some of the batch acknowledged | none acknowledged |
/// |---|---|---|
/// | acknowledged | `Publish` | - |
/// | `Rejected` | `Charge` | `Charge` |
/// | `NoRoute` | `PauseRoute` | `PauseRoute` |
/// | `Unknown` | `Defer` | `Hold` |
/// | `Unavailable` | `Hold` | `Hold` |
pub fn decide(failure: Option<BusErrorKind>, others_acked: bool) -> Verdict {
    match failure {
        None => Verdict::Publish,
        Some(BusErrorKind::Rejected) => Verdict::Charge,
        Some(BusErrorKind::NoRoute) => Verdict::PauseRoute,
        Some(BusErrorKind::Unknown) if others_acked => Verdict::Defer,
        Some(BusErrorKind::Unknown | BusErrorKind::Unavailable) => Verdict::Hold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table() {
        use BusErrorKind::*;
        let table = [
            (None, true, Verdict::Publish),
            (Some(Rejected), true, Verdict::Charge),
            (Some(Rejected), false, Verdict::Charge),
            (Some(NoRoute), true, Verdict::PauseRoute),
            (Some(NoRoute), false, Verdict::PauseRoute),
            (Some(Unknown), true, Verdict::Defer),
            (Some(Unknown), false, Verdict::Hold),
            (Some(Unavailable), true, Verdict::Hold),
            (Some(Unavailable), false, Verdict::Hold),
        ];
        for (failure, others_acked, verdict) in table {
            assert_eq!(decide(failure, others_acked), verdict, "{failure:?}, others acknowledged: {others_acked}");
        }
        let kinds = table.iter().filter_map(|row| row.0).collect::<std::collections::HashSet<_>>();
        assert_eq!(kinds.len(), BusErrorKind::ALL.len(), "a kind has no row");
    }

    #[test]
    fn only_the_events_own_fault_is_charged() {
        for kind in BusErrorKind::ALL {
            for others_acked in [true, false] {
                let charged = decide(Some(kind), others_acked) == Verdict::Charge;
                assert_eq!(charged, kind == BusErrorKind::Rejected, "{kind:?}");
            }
        }
    }
}
