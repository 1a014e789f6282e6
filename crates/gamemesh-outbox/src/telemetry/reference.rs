//! The metrics as a table: the only place that knows their names. `docs/metrics.md` is written from it, and tests hold the
//! alert rules and the dashboard to it.

/// What is to know about one metric.
#[derive(Debug)]
pub struct About {
    /// The name, without the endings of single series.
    pub name: &'static str,
    /// What it does over time.
    pub kind: Kind,
    /// How the numbers of several replicas become one.
    pub scope: Scope,
    /// Its labels besides `service`.
    pub labels: &'static [Label],
    /// What it counts, as `/metrics` says it.
    pub help: &'static str,
    /// The question of an operator that it answers.
    pub answers: &'static str,
}

/// What a metric does over time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process; its series ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by their size; its series end in `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// How the numbers of several replicas become one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Read from the table: the same number on every replica.
    Table,
    /// Of this replica alone.
    Replica,
}

/// A label and what it can say.
#[derive(Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values, all of them exported from the start; empty when they are not known beforehand.
    pub values: &'static [&'static str],
}

impl About {
    /// Returns the names of the series that a query can name.
    pub fn series(&self) -> Vec<String> {
        let endings: &[&str] = match self.kind {
            Kind::Counter => &["_total"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
        };
        endings.iter().map(|ending| format!("{}{ending}", self.name)).collect()
    }
}

/// The age past which an event is late. The alert rules call a time slice bad when the oldest due event is older, and the
/// histogram of delivery has a bucket that ends here.
pub const LATE_AFTER_SECONDS: f64 = 60.0;

/// Every metric, in the order of `docs/metrics.md`.
pub const ALL: [&About; 20] = [
    &OLDEST_DUE_AGE_SECONDS,
    &EVENTS_PENDING,
    &EVENTS_FAILED,
    &BACKLOG_COUNTED_TIMESTAMP_SECONDS,
    &EVENTS_PUBLISHED,
    &PUBLISH_FAILURES,
    &PUBLISH_ATTEMPTS,
    &EVENTS_DEAD_LETTERED,
    &AUDIT_ACTIONS,
    &PRUNED,
    &DELIVERY_DURATION_SECONDS,
    &PUBLISH_DURATION_SECONDS,
    &CLAIM_DURATION_SECONDS,
    &SETTLE_DURATION_SECONDS,
    &EVENTS_IN_FLIGHT,
    &LAST_POLL_TIMESTAMP_SECONDS,
    &STORE_UP,
    &BUS_UP,
    &STORE_FAILURES,
    &BUILD_INFO,
];

pub(super) const OLDEST_DUE_AGE_SECONDS: About = About {
    name: "gamemesh_outbox_oldest_due_age_seconds",
    kind: Kind::Gauge,
    scope: Scope::Table,
    labels: &[],
    help: "Age of the oldest event that is due, since it became due; 0 when there is none",
    answers: "Are consumers kept waiting, and for how long?",
};

pub(super) const EVENTS_PENDING: About = About {
    name: "gamemesh_outbox_events_pending",
    kind: Kind::Gauge,
    scope: Scope::Table,
    labels: &[],
    help: "Events that wait to be published, those between two attempts included; above a million an estimate",
    answers: "How much is there to catch up on?",
};

pub(super) const EVENTS_FAILED: About = About {
    name: "gamemesh_outbox_events_failed",
    kind: Kind::Gauge,
    scope: Scope::Table,
    labels: &[],
    help: "Dead letters: events that stand in FAILED until somebody requeues or discards them",
    answers: "Does a person have to act?",
};

pub(super) const BACKLOG_COUNTED_TIMESTAMP_SECONDS: About = About {
    name: "gamemesh_outbox_backlog_counted_timestamp_seconds",
    kind: Kind::Gauge,
    scope: Scope::Replica,
    labels: &[],
    help: "Unix time at which this replica last counted the table; 0 before the first time",
    answers: "Are the three gauges above current?",
};

pub(super) const EVENTS_PUBLISHED: About = About {
    name: "gamemesh_outbox_events_published",
    kind: Kind::Counter,
    scope: Scope::Replica,
    labels: &[],
    help: "Events acknowledged by the bus and settled in the table",
    answers: "How much gets through?",
};

pub(super) const PUBLISH_FAILURES: About = About {
    name: "gamemesh_outbox_publish_failures",
    kind: Kind::Counter,
    scope: Scope::Replica,
    labels: &[],
    help: "Publishes that were not acknowledged, whatever the reason",
    answers: "Does publishing fail?",
};

pub(super) const PUBLISH_ATTEMPTS: About = About {
    name: "gamemesh_outbox_publish_attempts",
    kind: Kind::Counter,
    scope: Scope::Replica,
    labels: &[Label {
        name: "outcome",
        values: &["acked", "duplicate", "rejected", "unavailable", "no_route", "unknown"],
    }],
    help: "Publishes by what the bus said about them",
    answers: "Whose fault are the failures: the events', the bus's, a missing stream's?",
};

pub(super) const EVENTS_DEAD_LETTERED: About = About {
    name: "gamemesh_outbox_events_dead_lettered",
    kind: Kind::Counter,
    scope: Scope::Replica,
    labels: &[],
    help: "Events set aside as FAILED",
    answers: "Has something new gone wrong?",
};

pub(super) const AUDIT_ACTIONS: About = About {
    name: "gamemesh_outbox_audit_actions",
    kind: Kind::Counter,
    scope: Scope::Replica,
    labels: &[Label { name: "action", values: &["requeue", "discard"] }],
    help: "Dead letters that people requeued or discarded through this process",
    answers: "Is somebody working on the dead letters already?",
};

pub(super) const PRUNED: About = About {
    name: "gamemesh_outbox_pruned",
    kind: Kind::Counter,
    scope: Scope::Replica,
    labels: &[],
    help: "Published events removed after their retention",
    answers: "Does the table stay small?",
};

pub(super) const DELIVERY_DURATION_SECONDS: About = About {
    name: "gamemesh_outbox_delivery_duration_seconds",
    kind: Kind::Histogram,
    scope: Scope::Replica,
    labels: &[],
    help: "Time from the insert of an event, by the database's clock, to its acknowledgement, by the relay's clock",
    answers: "How long does an event take from the transaction to the bus?",
};

pub(super) const PUBLISH_DURATION_SECONDS: About = About {
    name: "gamemesh_outbox_publish_duration_seconds",
    kind: Kind::Histogram,
    scope: Scope::Replica,
    labels: &[],
    help: "Time from sending a batch to its last acknowledgement",
    answers: "Is the bus slow?",
};

pub(super) const CLAIM_DURATION_SECONDS: About = About {
    name: "gamemesh_outbox_claim_duration_seconds",
    kind: Kind::Histogram,
    scope: Scope::Replica,
    labels: &[],
    help: "Time to claim a batch, empty ones included",
    answers: "Is the database slow to find work: dead tuples, a missing index, a lock?",
};

pub(super) const SETTLE_DURATION_SECONDS: About = About {
    name: "gamemesh_outbox_settle_duration_seconds",
    kind: Kind::Histogram,
    scope: Scope::Replica,
    labels: &[],
    help: "Time to record the outcome of a batch and commit",
    answers: "Is the database slow to write?",
};

pub(super) const EVENTS_IN_FLIGHT: About = About {
    name: "gamemesh_outbox_events_in_flight",
    kind: Kind::Gauge,
    scope: Scope::Replica,
    labels: &[],
    help: "Events that this replica has sent and that the bus has not answered yet",
    answers: "How many duplicates could a crash cause now, at most?",
};

pub(super) const LAST_POLL_TIMESTAMP_SECONDS: About = About {
    name: "gamemesh_outbox_last_poll_timestamp_seconds",
    kind: Kind::Gauge,
    scope: Scope::Replica,
    labels: &[],
    help: "Unix time of this replica's last successful poll of the table; 0 before the first one",
    answers: "Is the relay at work, or stuck?",
};

pub(super) const STORE_UP: About = About {
    name: "gamemesh_outbox_store_up",
    kind: Kind::Gauge,
    scope: Scope::Replica,
    labels: &[],
    help: "1 when the last turn could use the database, else 0; 0 before the first turn",
    answers: "Is it the database?",
};

pub(super) const BUS_UP: About = About {
    name: "gamemesh_outbox_bus_up",
    kind: Kind::Gauge,
    scope: Scope::Replica,
    labels: &[],
    help: "1 when the last turn that needed the bus could use it, else 0; 1 before the first such turn",
    answers: "Is it the bus?",
};

pub(super) const STORE_FAILURES: About = About {
    name: "gamemesh_outbox_store_failures",
    kind: Kind::Counter,
    scope: Scope::Replica,
    labels: &[],
    help: "Turns that failed because of the database",
    answers: "Does the database fail now and then?",
};

pub(super) const BUILD_INFO: About = About {
    name: "gamemesh_outbox_build_info",
    kind: Kind::Gauge,
    scope: Scope::Replica,
    labels: &[Label { name: "version", values: &[] }, Label { name: "schema", values: &[] }],
    help: "1, with the version of the relay and of the newest migration that it knows",
    answers: "Which versions run?",
};
