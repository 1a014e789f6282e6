//! What every store's examination says of events that wait for a reason: those that keep failing, and those that are due only
//! later.

use jiff::Timestamp;

use super::overview::Overview;
use crate::diagnosis::{Check, Finding, span};

/// Events that are due later than this, in days, were probably meant to be due earlier.
const FAR_DAYS: f64 = 30.0;
const SECONDS_OF_A_DAY: f64 = 86_400.0;

/// How a store writes the time now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now(pub(super) &'static str);

/// Judges what keeps failing.
pub(super) fn failing(check: &'static Check, seen: &Overview) -> Finding {
    let Some(worst) = seen.failing_topics.first() else { return check.ok("no event keeps failing") };
    let oldest = seen.oldest_failing.map(|oldest| format!(", the oldest from {oldest:.0}")).unwrap_or_default();
    let found = format!(
        "{} failed again and again{oldest}; most of them in {:?}: {}",
        events(seen.failing),
        worst.topic,
        worst.last_error
    );
    let fix = format!(
        "outbox-relay dead-letters show {}\n\
         mend the cause, or set OUTBOX_MAX_ATTEMPTS: then they become dead letters, which can be requeued and discarded",
        worst.example
    );
    check.warning(found, fix)
}

/// Judges what is due only later.
pub(super) fn due_later(check: &'static Check, seen: &Overview, Now(now): Now) -> Finding {
    let Some((_, last)) = seen.due_later_span else { return check.ok("every event that waits is due, or was tried") };
    // For people to read: how far two machines' clocks are apart is looked at elsewhere.
    let last_in = last.duration_since(Timestamp::now()).as_secs_f64();
    let found = format!("due only later: {}, the last in {}", events(seen.due_later), span(last_in));
    let wait_no_longer =
        |which: &str| format!("UPDATE outbox_events SET available_at = {now} WHERE status = 'PENDING' AND {which};");
    if seen.from_the_future > 0 {
        let ahead = events(seen.from_the_future);
        let ahead = format!("{found}; inserted by a clock that was ahead of the database's: {ahead}");
        return check.warning(ahead, wait_no_longer(&format!("created_at > {now}")));
    }
    if last_in > FAR_DAYS * SECONDS_OF_A_DAY {
        let fix = format!("where that is a mistake: {}", wait_no_longer("id IN (...)"));
        return check.warning(found, fix);
    }
    check.ok(found)
}

fn events(count: u64) -> String {
    if count == 1 { "1 event".to_owned() } else { format!("{count} events") }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use uuid::Uuid;

    use super::*;
    use crate::diagnosis::Severity;
    use crate::store::overview::FailingTopic;

    static CHECK: Check = Check { name: "test", looks_at: "", risk: "" };
    const NOW: Now = Now("now()");

    #[test]
    fn what_keeps_failing_is_named_with_its_reason() {
        assert_eq!(failing(&CHECK, &Overview::default()).severity, Severity::Ok);
        let topic = FailingTopic {
            topic: "events.player".into(),
            failing: 100,
            example: Uuid::nil(),
            last_error: "message too large".into(),
        };
        let seen = Overview { failing: 101, failing_topics: vec![topic], ..Overview::default() };
        let finding = failing(&CHECK, &seen);
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.found,
            "101 events failed again and again; most of them in \"events.player\": message too large"
        );
        assert!(finding.fix.contains(&Uuid::nil().to_string()) && finding.fix.contains("OUTBOX_MAX_ATTEMPTS"));
    }

    #[test]
    fn a_time_that_was_a_mistake_is_told_from_one_that_was_meant() {
        let in_days = |days: i64| Timestamp::now() + SignedDuration::from_hours(24 * days + 1);
        let seen = |days, from_the_future| Overview {
            due_later: 2,
            from_the_future,
            due_later_span: Some((in_days(0), in_days(days))),
            ..Overview::default()
        };
        assert_eq!(due_later(&CHECK, &Overview::default(), NOW).severity, Severity::Ok);
        let meant = due_later(&CHECK, &seen(7, 0), NOW);
        assert_eq!(
            (meant.severity, meant.found.as_str()),
            (Severity::Ok, "due only later: 2 events, the last in 7 d 0 h")
        );
        assert_eq!(due_later(&CHECK, &seen(365, 0), NOW).severity, Severity::Warning);
        let ahead = due_later(&CHECK, &seen(0, 1), NOW);
        assert_eq!(ahead.severity, Severity::Warning);
        assert!(ahead.fix.contains("created_at > now()"), "{ahead:?}");
        let never =
            Overview { due_later: 1, due_later_span: Some((Timestamp::MAX, Timestamp::MAX)), ..Overview::default() };
        assert_eq!(due_later(&CHECK, &never, NOW).severity, Severity::Warning);
    }
}
