//! Counters and gauges, from what a relay serves at `/metrics`.

use anyhow::{Context, Result};

use crate::history::{Counters, ReceiptKind, RelayRun};

/// Reads the counters of one relay.
pub fn counters(relay: RelayRun, text: &str) -> Result<Counters> {
    let attempts = ReceiptKind::ALL.map(|kind| {
        let label = format!("outcome=\"{}\"", kind.name());
        Ok((kind, value(text, "gamemesh_outbox_publish_attempts_total", &label)?))
    });
    Ok(Counters {
        relay,
        published: value(text, "gamemesh_outbox_events_published_total", "")?,
        publish_failures: value(text, "gamemesh_outbox_publish_failures_total", "")?,
        dead_lettered: value(text, "gamemesh_outbox_events_dead_lettered_total", "")?,
        attempts: attempts.into_iter().collect::<Result<_>>()?,
    })
}

/// Reads the gauges of PENDING and FAILED rows, in this order.
pub fn gauges(text: &str) -> Result<(u64, u64)> {
    Ok((value(text, "gamemesh_outbox_events_pending", "")?, value(text, "gamemesh_outbox_events_failed", "")?))
}

fn value(text: &str, name: &str, label: &str) -> Result<u64> {
    let named = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') && rest.contains(label));
    let line = text.lines().find(named).with_context(|| format!("expected the metric {name}{{{label}}}"))?;
    let value = line.rsplit(' ').next().unwrap_or_default();
    value.parse().with_context(|| format!("expected a whole number: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gamemesh_outbox::telemetry::Telemetry;

    #[test]
    fn every_counter_is_found_where_a_relay_serves_it() {
        let relay = RelayRun { name: "a".to_owned(), run: 1 };
        let text = Telemetry::new("relay, \"quoted\"").encode_metrics();
        let found = counters(relay.clone(), &text).unwrap();
        assert_eq!((found.published, found.publish_failures, found.dead_lettered), (0, 0, 0));
        assert_eq!(found.attempts.len(), ReceiptKind::ALL.len());
        assert_eq!(gauges(&text).unwrap(), (0, 0));
        let moved = text.replace("outcome=\"unknown\"} 0", "outcome=\"unknown\"} 7");
        assert_eq!(counters(relay.clone(), &moved).unwrap().attempts[&ReceiptKind::Unknown], 7);
        assert!(counters(relay, "").is_err());
    }
}
