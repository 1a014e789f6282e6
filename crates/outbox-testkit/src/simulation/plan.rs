use std::time::Duration;

use gamemesh_outbox::relay::{Backoff, Charge, RelayConfig};
use gamemesh_outbox::store::OnPublished;
use gamemesh_outbox::validate::Validator;

use super::dice::Dice;
use super::met::Met;
use crate::history::{Configuration, Nanos};

/// Everything about a run that is drawn before it begins.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// One for each replica; they differ in size and pace, not in policy.
    pub replicas: Vec<RelayConfig>,
    pub policy: Policy,
    /// Most of a message that the bus takes.
    pub message_bytes_max: usize,
    /// How long the bus drops copies; zero if never.
    pub duplicate_window: Duration,
    pub producers: u64,
    pub transactions: u64,
    /// How long things go wrong.
    pub troubled: Duration,
    /// How many faults are scheduled in that time.
    pub faults: u64,
    /// How many of a thousand operations go wrong.
    pub fault_rate: u64,
    /// How many of a thousand steps of a relay are its last.
    pub kill_rate: u64,
    /// How many of a thousand messages see their relay asked to stop.
    pub stop_rate: u64,
    /// The longest that an operation takes, milliseconds.
    pub store_latency: u64,
    pub bus_latency: u64,
    /// How many of a thousand events are poison.
    pub poison_rate: u64,
    /// Whether the first replica stays cut off from the bus to the end.
    pub half_broken: bool,
}

/// What all replicas have in common, unless they are being given another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// Which one it is, counted from 0.
    pub number: u32,
    pub attempts_max: u32,
    pub charge: Charge,
    pub on_published: OnPublished,
    pub retention: Option<Duration>,
}

impl Policy {
    fn draw(dice: &Dice, number: u32, attempts_max: &[u32]) -> Self {
        let attempts_max = dice.pick(attempts_max);
        let on_published = dice.pick(&[OnPublished::Mark, OnPublished::Mark, OnPublished::Delete]);
        let retention = dice.chance(600).then(|| dice.millis(500..=8_000));
        // Not one more throw: the other seeds show what they showed before there was a choice.
        let charges_all = retention.is_some_and(|retention| retention.as_millis() % 4 == 3);
        let charge = if charges_all { Charge::All } else { Charge::Rejected };
        Self { number, attempts_max, charge, on_published, retention }
    }

    /// Draws what comes after it. A maximum stays one, or poison would never be at rest.
    pub(super) fn next(&self, dice: &Dice) -> Self {
        let attempts_max: &[u32] = if self.attempts_max == 0 { &[0] } else { &[1, 2, 4] };
        Self::draw(dice, self.number + 1, attempts_max)
    }
}

/// The relay's own patience with an adapter, and what the store may need at the end of a drain.
const DRAIN_SLACK: Duration = Duration::from_secs(5);
/// A run that has healed and is not at rest after this is stuck: many times the longest wait of any configuration.
pub(super) const REST_WITHIN: Duration = Duration::from_secs(180);

impl Plan {
    pub(super) fn draw(dice: &Dice) -> Self {
        let policy = Policy::draw(dice, 0, &[0, 1, 2, 3, 5]);
        let retry_max = dice.millis(500..=4_000);
        let retry = Backoff { initial: dice.millis(50..=500), max: retry_max };
        let payload_bytes_max = dice.number(100..=300);
        let validator = Validator { topic_prefixes: vec!["events.".to_owned()], payload_bytes_max };
        let publish_timeout = dice.millis(300..=3_000);
        let count = dice.number(2..=5);
        let replica = || {
            let poll_interval = dice.millis(100..=1_500);
            let batch_size = dice.pick(&[1, 2, 3, 5, 10, 20]);
            RelayConfig {
                batch_size,
                batch_size_max: 4 * batch_size,
                batch_bytes: dice.pick(&[60, 500, 1_000_000]),
                workers: dice.pick(&[1, 1, 2, 4]),
                poll_interval,
                attempts_max: policy.attempts_max,
                charge: policy.charge,
                charge_routes_after: None,
                on_published: policy.on_published,
                publish_timeout,
                retry,
                outage: Backoff { initial: dice.millis(50..=500), max: 2 * poll_interval + dice.millis(0..=2_000) },
                drain_timeout: publish_timeout + DRAIN_SLACK,
                backlog_interval: Duration::from_secs(1),
                validator: validator.clone(),
            }
        };
        let replicas = (0..count).map(|_| replica()).collect();
        let quiet = dice.chance(80);
        let faults = if quiet { 0 } else { dice.number(1..=6) };
        Self {
            replicas,
            policy,
            message_bytes_max: payload_bytes_max as usize + 700,
            duplicate_window: dice.pick(&[Duration::ZERO, Duration::ZERO, Duration::from_secs(2), Duration::MAX]),
            producers: dice.number(1..=3),
            transactions: dice.number(2..=12),
            troubled: dice.millis(5_000..=20_000),
            faults,
            fault_rate: if quiet { 0 } else { dice.pick(&[0, 10, 30, 80]) },
            kill_rate: if quiet { 0 } else { dice.pick(&[0, 2, 5, 15]) },
            stop_rate: if quiet { 0 } else { dice.pick(&[0, 10, 40]) },
            store_latency: dice.pick(&[0, 1, 5, 30, 150]),
            bus_latency: dice.pick(&[0, 1, 10, 60, 250]),
            poison_rate: dice.pick(&[0, 50, 150, 500]),
            half_broken: !quiet && dice.chance(120),
        }
    }

    /// The relay's configuration of one replica.
    pub(super) fn replica(&self, number: usize, policy: Policy) -> RelayConfig {
        let Policy { attempts_max, charge, on_published, .. } = policy;
        RelayConfig { attempts_max, charge, on_published, ..self.replicas[number].clone() }
    }

    pub(super) fn publish_timeout(&self) -> Duration {
        self.replicas[0].publish_timeout
    }

    /// The most of a payload that relays take.
    pub(super) fn payload_bytes_max(&self) -> u64 {
        self.replicas[0].validator.payload_bytes_max
    }

    pub(super) fn configuration(&self, policy: Policy) -> Configuration {
        Configuration {
            attempts_max: policy.attempts_max,
            charges_all: policy.charge == Charge::All,
            on_published: policy.on_published,
            retention: policy.retention.map(nanos),
            retry_max: nanos(self.replicas[0].retry.max),
            // The store in memory reads its clock once for each transaction.
            settle_max: 0,
        }
    }

    /// Lists what a run by this plan meets before it begins.
    pub(super) fn tells(&self) -> impl Iterator<Item = Met> {
        let quiet = self.faults == 0 && self.fault_rate == 0 && self.kill_rate == 0;
        let tells = [
            (Met::QuietRun, quiet),
            (Met::HalfBrokenRun, self.half_broken),
            (Met::MarkMode, self.policy.on_published == OnPublished::Mark),
            (Met::DeleteMode, self.policy.on_published == OnPublished::Delete),
            (Met::ChargingAll, self.policy.charge == Charge::All),
            (Met::NoMaximum, self.policy.attempts_max == 0),
            (Met::Pruning, self.policy.retention.is_some()),
            (Met::Deduplicating, !self.duplicate_window.is_zero()),
        ];
        tells.into_iter().filter(|(_, is)| *is).map(|(met, _)| met)
    }
}

pub(super) fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}
