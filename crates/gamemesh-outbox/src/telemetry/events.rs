//! What the bus says of each event, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use super::verdict::{Side, Step};
use super::{ClaimHistory, Telemetry};
use crate::bus::Receipt;
use crate::event::Event;

/// How many events of a batch were answered one by one.
#[derive(Debug, Default)]
pub(crate) struct Answered(AtomicU32);

/// Events of one topic and type.
struct Group<'a> {
    topic: &'a str,
    event_type: &'a str,
    acked: u64,
    failed: u64,
}

impl Telemetry {
    /// Returns what is told how long each answer took.
    pub(crate) fn times_of(&self, answered: &Arc<Answered>) -> Arc<dyn Fn(Duration) + Send + Sync> {
        let (telemetry, answered) = (self.clone(), answered.clone());
        Arc::new(move |took| {
            answered.0.fetch_add(1, Ordering::Relaxed);
            telemetry.metrics().publish_duration_seconds.observe(took.as_secs_f64());
        })
    }

    /// Of `sent` events, those that were not answered one by one had their answer, or none, after `took`.
    pub(crate) fn unanswered(&self, answered: &Answered, sent: u32, took: Duration) {
        for _ in answered.0.load(Ordering::Relaxed)..sent {
            self.metrics().publish_duration_seconds.observe(took.as_secs_f64());
        }
    }

    /// Those that were not sent have no receipt.
    pub(crate) fn published(&self, claim: &ClaimHistory, events: &[Event], receipts: &[Option<Receipt>]) {
        claim.receipts(receipts);
        let metrics = self.metrics();
        let now = Timestamp::now();
        let name = |receipt: &Option<Receipt>| receipt.as_ref().map(outcome);
        for same in receipts.chunk_by(|one, next| name(one) == name(next)) {
            name(&same[0]).into_iter().for_each(|name| metrics.publish_attempts.inc_by(name, same.len() as u64));
        }
        for (event, receipt) in events.iter().zip(receipts) {
            if matches!(receipt, Some(Ok(_))) {
                // Two clocks: an event from the future took no time.
                let took = now.duration_since(event.created_at).as_secs_f64().max(0.0);
                metrics.delivery_duration_seconds.observe(took);
            }
        }
        self.count_by_name(events, receipts);
        let failures = receipts.iter().flatten().filter(|receipt| receipt.is_err()).count() as u64;
        let duplicates = receipts.iter().flatten().flatten().filter(|ack| ack.duplicate).count() as u64;
        metrics.publish_failures.inc_by(failures);
        if receipts.iter().flatten().any(Result::is_ok) {
            self.note(Side::Bus, Step::Publish, Ok(()));
        }
        self.update(|progress| {
            progress.publish_failures += failures;
            progress.duplicates += duplicates;
        });
    }

    /// Counts by topic and type. A topic has its failures from the first time it is met, at 0.
    fn count_by_name(&self, events: &[Event], receipts: &[Option<Receipt>]) {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (event, receipt) in events.iter().zip(receipts) {
            let Some(receipt) = receipt else { continue };
            let (topic, event_type) = (event.topic.as_str(), event.event_type.as_str());
            let known = groups.iter().rposition(|group| group.topic == topic && group.event_type == event_type);
            let place = known.unwrap_or_else(|| {
                groups.push(Group { topic, event_type, acked: 0, failed: 0 });
                groups.len() - 1
            });
            groups[place].acked += u64::from(receipt.is_ok());
            groups[place].failed += u64::from(receipt.is_err());
        }
        for Group { topic, event_type, acked, failed } in groups {
            self.metrics().bus_published.inc_by([topic, event_type], acked);
            self.metrics().bus_failed.inc_by([topic, "publish"], failed);
        }
    }
}

/// Names what the bus said, as the label `outcome`.
pub(super) fn outcome(receipt: &Receipt) -> &'static str {
    match receipt {
        Ok(ack) if ack.duplicate => "duplicate",
        Ok(_) => "acked",
        Err(error) => error.kind().name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_one_observation_answered_alone_or_not() {
        let telemetry = Telemetry::new("test");
        let answered = Arc::new(Answered::default());
        let told = telemetry.times_of(&answered);
        told(Duration::from_millis(2));
        told(Duration::from_millis(20));
        telemetry.unanswered(&answered, 5, Duration::from_secs(3));
        // A batch that panicked is told of again, event by event.
        (0..7).for_each(|_| told(Duration::from_millis(2)));
        telemetry.unanswered(&answered, 5, Duration::from_secs(3));
        let text = telemetry.encode_metrics_plainly();
        for line in [
            "gamemesh_outbox_publish_duration_seconds_bucket{service=\"test\",le=\"0.005\"} 8\n",
            "gamemesh_outbox_publish_duration_seconds_bucket{service=\"test\",le=\"2.5\"} 9\n",
            "gamemesh_outbox_publish_duration_seconds_bucket{service=\"test\",le=\"5\"} 12\n",
            "gamemesh_outbox_publish_duration_seconds_count{service=\"test\"} 12\n",
        ] {
            assert!(text.contains(line), "expected {line}in\n{text}");
        }
    }
}
