//! What to do about a receipt: one pure function, and the only place that decides.

use crate::bus::BusErrorKind;

/// What the relay does with one event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Stored by the bus: done.
    Publish,
    /// The event's own fault: count an attempt, wait, and in the end set it aside.
    Charge,
    /// Not acknowledged while its neighbours were: wait out of their way, count nothing, send it again.
    Defer,
    /// The bus's fault: give it back untouched, leave its route alone, and slow the relay down.
    Hold,
    /// Its route's fault: give it back untouched and leave the route alone for a while.
    PauseRoute,
}

/// Who took an event lately, where another was not acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Acked {
    /// Its own route, in the same batch or while it was on its way.
    ItsRoute,
    /// Another route, in the same batch or a moment ago.
    OtherRoutes,
    /// None.
    Nobody,
}

/// Decides what to do with one event.
///
/// `failure` is the kind of its failed receipt, `None` when it was acknowledged. An outage is what concerns all routes: as
/// long as another one takes events, a failure is the route's trouble, and where its own one does, the event's.
///
/// | receipt | its route acknowledged others | other routes did | nobody did |
/// |---|---|---|---|
/// | acknowledged | `Publish` | - | - |
/// | `Rejected` | `Charge` | `Charge` | `Charge` |
/// | `NoRoute` | `PauseRoute` | `PauseRoute` | `PauseRoute` |
/// | `Unknown` | `Defer` | `PauseRoute` | `Hold` |
/// | `Unavailable` | `Defer` | `PauseRoute` | `Hold` |
pub fn decide(failure: Option<BusErrorKind>, acked: Acked) -> Verdict {
    match (failure, acked) {
        (None, _) => Verdict::Publish,
        (Some(BusErrorKind::Rejected), _) => Verdict::Charge,
        (Some(BusErrorKind::NoRoute), _) => Verdict::PauseRoute,
        (Some(BusErrorKind::Unknown | BusErrorKind::Unavailable), Acked::ItsRoute) => Verdict::Defer,
        (Some(BusErrorKind::Unknown | BusErrorKind::Unavailable), Acked::OtherRoutes) => Verdict::PauseRoute,
        (Some(BusErrorKind::Unknown | BusErrorKind::Unavailable), Acked::Nobody) => Verdict::Hold,
    }
}

/// Which failed publishes count as attempts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Charge {
    /// Those that are the event's own fault.
    #[default]
    Rejected,
    /// All, an outage of the bus included: the rule of the earlier relay.
    All,
}

/// Says whether a publish that failed counts as an attempt; only such events are ever set aside.
///
/// `verdict` is what [`decide`] says of it, and `given_up` whether its route has taken nothing for longer than anybody wants
/// to wait.
///
/// | verdict | `Rejected` | `Rejected`, given up | `All` |
/// |---|---|---|---|
/// | `Charge` | yes | yes | yes |
/// | `PauseRoute` | no | yes | yes |
/// | `Defer`, `Hold` | no | no | yes |
pub fn counts(verdict: Verdict, charge: Charge, given_up: bool) -> bool {
    match verdict {
        Verdict::Publish => false,
        Verdict::Charge => true,
        Verdict::PauseRoute => given_up || charge == Charge::All,
        Verdict::Defer | Verdict::Hold => charge == Charge::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYBODY: [Acked; 3] = [Acked::ItsRoute, Acked::OtherRoutes, Acked::Nobody];

    #[test]
    fn every_row_of_the_table() {
        use BusErrorKind::*;
        use Verdict::*;
        let table = [
            (None, [Publish, Publish, Publish]),
            (Some(Rejected), [Charge, Charge, Charge]),
            (Some(NoRoute), [PauseRoute, PauseRoute, PauseRoute]),
            (Some(Unknown), [Defer, PauseRoute, Hold]),
            (Some(Unavailable), [Defer, PauseRoute, Hold]),
        ];
        for (failure, verdicts) in table {
            for (acked, verdict) in EVERYBODY.into_iter().zip(verdicts) {
                assert_eq!(decide(failure, acked), verdict, "{failure:?}, acknowledged: {acked:?}");
            }
        }
        let kinds = table.iter().filter_map(|row| row.0).collect::<std::collections::HashSet<_>>();
        assert_eq!(kinds.len(), BusErrorKind::ALL.len(), "a kind has no row");
    }

    #[test]
    fn every_row_of_what_counts() {
        use Verdict::*;
        let table = [
            (Publish, [false, false, false]),
            (Charge, [true, true, true]),
            (PauseRoute, [false, true, true]),
            (Defer, [false, false, true]),
            (Hold, [false, false, true]),
        ];
        for (verdict, counted) in table {
            let columns =
                [(super::Charge::Rejected, false), (super::Charge::Rejected, true), (super::Charge::All, false)];
            for ((charge, given_up), counted) in columns.into_iter().zip(counted) {
                assert_eq!(counts(verdict, charge, given_up), counted, "{verdict:?}, {charge:?}, given up: {given_up}");
            }
        }
    }

    #[test]
    fn only_the_events_own_fault_is_charged() {
        for kind in BusErrorKind::ALL {
            for acked in EVERYBODY {
                let charged = decide(Some(kind), acked) == Verdict::Charge;
                assert_eq!(charged, kind == BusErrorKind::Rejected, "{kind:?}");
            }
        }
    }

    #[test]
    fn it_is_no_outage_while_any_route_takes_events() {
        for kind in BusErrorKind::ALL {
            for acked in [Acked::ItsRoute, Acked::OtherRoutes] {
                assert_ne!(decide(Some(kind), acked), Verdict::Hold, "{kind:?}, acknowledged: {acked:?}");
            }
        }
    }
}
