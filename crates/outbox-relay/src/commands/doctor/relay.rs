//! What a relay that runs says of itself: it knows what no look from outside can see.

use gamemesh_outbox::diagnosis::{Check, Finding};

use crate::commands::running::Running;

static READY: Check = Check {
    name: "relay.ready",
    looks_at: "whether the relay that runs on this machine, or that `--relay` names, can do its work",
    risk: "no event leaves the outbox by way of this relay",
};
static TROUBLES: Check = Check {
    name: "relay.troubles",
    looks_at: "what that relay is in trouble with while the rest goes on: routes, places, outcomes, rows",
    risk: "what is named does not go on, while everything else may",
};

/// Everything that is asked of a relay.
#[cfg(test)]
pub(super) static CHECKS: [&Check; 2] = [&READY, &TROUBLES];

/// What to do, by kind of trouble.
const FIXES: [(&str, &str); 5] = [
    ("route", "give the topic its place on the bus, or the permission: docs/runbooks.md#outboxroutetrouble"),
    ("place", "change the place as the reason says: docs/runbooks.md#outboxplacetrouble"),
    ("outcome", "remove what the database names: docs/runbooks.md#outboxoutcomesnotwritten"),
    ("held", "end the transaction, as the reason says: docs/runbooks.md#outboxeventsheld"),
    ("pruning", "remove what keeps the row: docs/runbooks.md#outboxpruningtrouble"),
];

pub(super) fn judge(running: &Running) -> Vec<Finding> {
    let Some(said) = &running.said else { return vec![READY.ok(running.line())] };
    let verdict = match said.readiness.ready {
        true => READY.ok(running.line()),
        false => READY.error(running.line(), "do what the reason says; the other findings name more"),
    };
    std::iter::once(verdict).chain(said.trouble_lines().into_iter().map(judge_trouble)).collect()
}

fn judge_trouble((kind, trouble): (&str, String)) -> Finding {
    let fix = FIXES.iter().find(|(known, _)| *known == kind).map_or("look at what the reason names", |(_, fix)| fix);
    TROUBLES.warning(trouble, fix)
}

#[cfg(test)]
mod tests {
    use gamemesh_outbox::diagnosis::Severity;
    use serde_json::json;

    use super::*;
    use crate::commands::running::Said;

    fn running(readiness: serde_json::Value, troubles: serde_json::Value) -> Running {
        let said = Said {
            readiness: serde_json::from_value(readiness).unwrap(),
            troubles: serde_json::from_value(troubles).unwrap(),
        };
        Running { at: Some("http://127.0.0.1:8085".to_owned()), said: Some(said) }
    }

    #[test]
    fn a_relay_that_does_not_answer_is_no_failure_and_one_that_is_not_ready_is() {
        let nobody = judge(&Running { at: Some("http://127.0.0.1:8085".to_owned()), said: None });
        assert_eq!((nobody.len(), nobody[0].severity), (1, Severity::Ok), "{nobody:?}");
        let bus = json!({ "ok": false, "error": "refused" });
        let down = json!({ "ready": false, "reason": "the bus cannot be used: refused", "store": {}, "bus": bus });
        let found = judge(&running(down, json!([])));
        assert_eq!(found[0].severity, Severity::Error);
        assert!(found[0].found.contains("the bus cannot be used: refused"), "{found:?}");
    }

    #[test]
    fn each_trouble_is_named_with_what_to_do() {
        let ready = json!({ "ready": true, "reason": null, "store": {}, "bus": {} });
        let trouble = json!([{
            "kind": "route", "name": "events.shop placed", "since": "2026-01-31T23:59:59.123456Z",
            "reason": "no stream takes events.shop.placed", "waiting": 12,
        }]);
        let found = judge(&running(ready, trouble));
        assert_eq!(found[1].severity, Severity::Warning);
        let expected =
            "route events.shop placed since 2026-01-31T23:59:59Z, 12 waiting: no stream takes events.shop.placed";
        assert_eq!(found[1].found, expected);
        assert!(found[1].fix.contains("outboxroutetrouble"));
    }

    #[test]
    fn of_many_troubles_of_a_kind_the_first_ones_are_shown_and_how_many_more_there_are() {
        let ready = json!({ "ready": true, "reason": null, "store": {}, "bus": {} });
        let trouble =
            |kind: &str, name: u32| json!({ "kind": kind, "name": name.to_string(), "since": "", "reason": "" });
        let troubles: Vec<_> = (0..200).map(|name| trouble("outcome", name)).chain([trouble("route", 1)]).collect();
        let found = judge(&running(ready, troubles.into()));
        assert_eq!(found.len(), 8, "{found:?}");
        assert_eq!(found[6].found, "outcome: 195 more, /api/v1/troubles lists them");
        assert!(found[6].fix.contains("outboxoutcomesnotwritten") && found[7].found.starts_with("route 1"));
    }
}
