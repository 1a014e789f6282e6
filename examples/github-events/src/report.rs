use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::arrivals::Arrival;
use crate::webhook::Webhook;

/// What became of the webhooks.
#[derive(Debug, Default)]
pub struct Report {
    /// Events inserted.
    pub sent: usize,
    /// Events of which at least one message came.
    pub received: usize,
    /// Messages beyond the first of an event.
    pub duplicates: usize,
    /// What differs, one line for each difference.
    pub mismatches: Vec<String>,
    bytes: usize,
}

/// The wire format, as far as it is compared.
#[derive(Deserialize)]
struct Envelope<'a> {
    id: Uuid,
    #[serde(rename = "type")]
    event_type: String,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl Report {
    /// Says whether everything arrived, as it was sent, once.
    pub fn is_clean(&self) -> bool {
        self.received == self.sent && self.duplicates == 0 && self.mismatches.is_empty()
    }

    /// Compares what arrived with what was sent and with the payloads as `stored`. Messages of others are not looked at.
    pub(crate) fn compare(webhooks: &[Webhook], ids: &[Uuid], stored: &[String], arrivals: &[Arrival]) -> Self {
        let mut by_id: HashMap<&str, Vec<&Arrival>> = HashMap::new();
        for arrival in arrivals {
            by_id.entry(arrival.message_id.as_deref().unwrap_or_default()).or_default().push(arrival);
        }
        let mut report = Self { sent: webhooks.len(), ..Self::default() };
        for ((webhook, id), stored) in webhooks.iter().zip(ids).zip(stored) {
            let copies = by_id.remove(id.to_string().as_str()).unwrap_or_default();
            report.duplicates += copies.len().saturating_sub(1);
            let Some(first) = copies.first() else { continue };
            report.received += 1;
            report.bytes += first.body.len();
            if let Err(difference) = same(webhook, *id, stored, first) {
                report.mismatches.push(format!("{} {id}: {difference}", webhook.event_type));
            }
        }
        report
    }
}

fn same(webhook: &Webhook, id: Uuid, stored: &str, arrival: &Arrival) -> Result<(), String> {
    let envelope: Envelope = serde_json::from_slice(&arrival.body).map_err(|error| format!("envelope: {error}"))?;
    let subject = format!("{}.{}", webhook.topic, webhook.event_type);
    if arrival.subject != subject {
        return Err(format!("expected subject {subject}, got {}", arrival.subject));
    }
    if envelope.id != id || envelope.event_type != webhook.event_type {
        return Err(format!("expected its id and type in the envelope, got {} {}", envelope.id, envelope.event_type));
    }
    if envelope.payload.get() != stored {
        return Err("the payload is not, byte for byte, what PostgreSQL holds".into());
    }
    // JSONB orders keys and drops white space: compared with what GitHub sent, values count.
    if parse(envelope.payload.get())? != parse(webhook.payload.get())? {
        return Err("the payload is not what was sent".into());
    }
    Ok(())
}

fn parse(json: &str) -> Result<Value, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sent        {:>6}", self.sent)?;
        writeln!(f, "received    {:>6}   {} kB", self.received, self.bytes / 1000)?;
        writeln!(f, "missing     {:>6}", self.sent - self.received)?;
        writeln!(f, "duplicates  {:>6}", self.duplicates)?;
        writeln!(f, "mismatches  {:>6}", self.mismatches.len())?;
        for mismatch in &self.mismatches {
            writeln!(f, "  {mismatch}")?;
        }
        Ok(())
    }
}
