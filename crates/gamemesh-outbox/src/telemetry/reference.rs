//! The metrics as a table, the only place that knows their names: an entry is the metric. The registry, the handles of the
//! relay and `docs/metrics.md` are made from it, and tests hold the alert rules and the dashboard to it.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use super::about::{About, Kind, Label, Scope};
use super::handle::{CounterBy, CounterByNames, GaugeBy, GaugeByName, Handle, HistogramByNames, Info, Seconds, Total};

/// The age past which an event is late. The alert rules call a time slice bad when the oldest due event is older, and the
/// histogram of delivery has a bucket that ends here.
pub const LATE_AFTER_SECONDS: f64 = 60.0;

/// 1 ms to 5 s, as the earlier relay had them: quantiles are right only where both relays use the same.
const ANSWER_BUCKETS: [f64; 11] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// 1 ms to 16 s: from one answer on a local network to past the publish timeout.
const STEP_BUCKETS: [f64; 15] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];

/// Makes of each entry `gamemesh_outbox_<entry>`, or what it is `named`: what is to know about it, its handle, and its
/// registration.
macro_rules! metrics {
    ($($metric:ident: $handle:ty {
        $(named: $name:literal,)?
        scope: $scope:ident,
        $(labels: $labels:expr,)?
        $(buckets: $buckets:expr,)?
        help: $help:literal,
        answers: $answers:literal,
    })*) => {
        /// Every metric, in the order of `docs/metrics.md`.
        pub const ALL: [&About; [$($help),*].len()] = [$(&About {
            name: [$($name,)? concat!("gamemesh_outbox_", stringify!($metric))][0],
            kind: <$handle as Handle>::KIND,
            scope: Scope::$scope,
            help: $help,
            answers: $answers,
            // Where an entry does not say them, it has none.
            labels: [$($labels,)? NO_LABELS][0],
            buckets: [$($buckets,)? NO_BUCKETS][0],
        }),*];

        /// The metrics of one relay.
        #[derive(Debug)]
        pub(super) struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $metric: $handle,)*
        }

        impl Metrics {
            pub(super) fn new(service: &str) -> Self {
                let label = ("service".into(), service.to_owned().into());
                let mut registry = Registry::with_labels([label].into_iter());
                let [$($metric),*] = ALL;
                Self { $($metric: Handle::register($metric, &mut registry),)* registry }
            }
        }
    };
}

const NO_LABELS: &[Label] = &[];
const NO_BUCKETS: &[f64] = &[];

impl Metrics {
    pub(super) fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

metrics! {
    oldest_due_age_seconds: Seconds {
        scope: Table,
        help: "Age of the oldest event that is due, since it became due; 0 when there is none",
        answers: "Are consumers kept waiting, and for how long?",
    }

    events_pending: Gauge {
        scope: Table,
        help: "Events that wait to be published, those between two attempts included; above a million an estimate",
        answers: "How much is there to catch up on?",
    }

    events_failed: Gauge {
        scope: Table,
        help: "Dead letters: events that stand in FAILED until somebody requeues or discards them",
        answers: "Does a person have to act?",
    }

    events_failing: Gauge {
        scope: Table,
        help: "Events that wait for another attempt after three or more that counted against them; above 100,000 an estimate",
        answers: "Does something fail for ever that nobody set aside?",
    }

    events_due_later: Gauge {
        scope: Table,
        help: "Events that nobody has tried yet and that are due only in more than a minute; above 100,000 an estimate",
        answers: "Does something wait for a time that was a mistake: a clock that was ahead, a wrong year?",
    }

    backlog_counted_timestamp_seconds: Seconds {
        scope: Replica,
        help: "Unix time at which this replica last counted the table; 0 before the first time",
        answers: "Are the five gauges above current?",
    }

    events_published: Counter {
        scope: Replica,
        help: "Events acknowledged by the bus and settled in the table",
        answers: "How much gets through?",
    }

    publish_failures: Counter {
        scope: Replica,
        help: "Publishes that were not acknowledged, whatever the reason",
        answers: "Does publishing fail?",
    }

    publish_attempts: CounterBy {
        scope: Replica,
        labels: &[Label {
            name: "outcome",
            values: &["acked", "duplicate", "rejected", "unavailable", "no_route", "unknown"],
        }],
        help: "Publishes by what the bus said about them",
        answers: "Whose fault are the failures: the events', the bus's, a missing stream's?",
    }

    events_dead_lettered: Counter {
        scope: Replica,
        help: "Events set aside as FAILED",
        answers: "Has something new gone wrong?",
    }

    audit_actions: CounterBy {
        scope: Replica,
        labels: &[Label { name: "action", values: &["requeue", "discard"] }],
        help: "Dead letters that people requeued or discarded through this process",
        answers: "Is somebody working on the dead letters already?",
    }

    pruned: Counter {
        scope: Replica,
        help: "Published events removed after their retention",
        answers: "Does the table stay small?",
    }

    pruning_kept: Gauge {
        scope: Replica,
        help: "Published events past their retention that did not let themselves be removed when last tried",
        answers: "Does something keep rows that should be gone?",
    }

    delivery_duration_seconds: Histogram {
        scope: Replica,
        // From an idle relay that is woken at once to an outage of hours.
        buckets: &[
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0,
            LATE_AFTER_SECONDS, 300.0, 900.0, 3600.0, 21600.0,
        ],
        help: "Time from the insert of an event, by the database's clock, to its acknowledgement, by the relay's clock",
        answers: "How long does an event take from the transaction to the bus?",
    }

    publish_duration_seconds: Histogram {
        scope: Replica,
        buckets: &ANSWER_BUCKETS,
        help: "Time from sending an event, with those of its batch, to the answer to it, one observation for each event; where a \
               bus tells of no answer alone, and for what is never answered, to the end of the batch",
        answers: "Is the bus slow?",
    }

    claim_duration_seconds: Histogram {
        scope: Replica,
        buckets: &STEP_BUCKETS,
        help: "Time to claim a batch, empty ones included",
        answers: "Is the database slow to find work: dead tuples, a missing index, a lock?",
    }

    settle_duration_seconds: Histogram {
        scope: Replica,
        buckets: &STEP_BUCKETS,
        help: "Time to record the outcome of a batch and commit",
        answers: "Is the database slow to write?",
    }

    events_in_flight: Gauge {
        scope: Replica,
        help: "Events that this replica has sent and that the bus has not answered yet",
        answers: "How many duplicates could a crash cause now, at most?",
    }

    last_poll_timestamp_seconds: Seconds {
        scope: Replica,
        help: "Unix time of this replica's last successful poll of the table; 0 before the first one",
        answers: "Is the relay at work, or stuck?",
    }

    store_up: Gauge {
        scope: Replica,
        help: "1 when this replica can use the database, else 0: it claims, outcomes can be written, and it answers when \
               asked; 0 before anything is known",
        answers: "Is it the database?",
    }

    outcomes_up: Gauge {
        scope: Replica,
        help: "0 while the database answers and lets no outcome be written, so that this replica publishes nothing, else 1",
        answers: "Is it something in the database, and not the database?",
    }

    bus_up: Gauge {
        scope: Replica,
        help: "1 when this replica can use the bus, else 0: it takes events, and answers when asked; 1 before anything is \
               known",
        answers: "Is it the bus?",
    }

    store_failures: Counter {
        scope: Replica,
        help: "Turns that failed because of the database",
        answers: "Does the database fail now and then?",
    }

    outcomes_unwritten: Counter {
        scope: Replica,
        help: "Outcomes that the database refused to write, in earnest or in a rehearsal, each try counted",
        answers: "Does a constraint, a trigger or a privilege keep events from being marked?",
    }

    log_lines_lost: Counter {
        scope: Replica,
        help: "Lines of the log that could not be written, or that nobody read in time",
        answers: "Is the log complete?",
    }

    spans_lost: Counter {
        scope: Replica,
        help: "Spans that no collector took",
        answers: "Are the traces complete?",
    }

    troubles: GaugeBy {
        scope: Replica,
        labels: &[Label { name: "kind", values: &["route", "place", "outcome", "pruning", "held", "telling"] }],
        help: "Routes, events and rows that this replica has trouble with now, by kind; those above 256 are not counted",
        answers: "Does something small not go on while the rest does?",
    }

    route_trouble: GaugeByName {
        scope: Replica,
        labels: &[Label { name: "topic", values: &[] }],
        help: "Event types of a topic that the bus takes nothing of while others go through, for the first 20 topics; `other` has \
               the rest",
        answers: "Which topic is it?",
    }

    build_info: Info {
        scope: Replica,
        labels: &[Label { name: "version", values: &[] }, Label { name: "schema", values: &[] }],
        help: "1, with the version of the relay and of the newest migration that it knows",
        answers: "Which versions run?",
    }

    bus_published: CounterByNames {
        named: "gamemesh_events_published",
        scope: Replica,
        labels: &[Label { name: "topic", values: &[] }, Label { name: "type", values: &[] }],
        help: "Events acknowledged by the bus, for the first 100 pairs of topic and type; `other` has the rest",
        answers: "How much of what gets through?",
    }

    bus_failed: CounterByNames {
        named: "gamemesh_events_failed",
        scope: Replica,
        labels: &[Label { name: "topic", values: &[] }, Label { name: "stage", values: &["publish"] }],
        help: "Publishes that were not acknowledged, for the first 100 topics; `other` has the rest",
        answers: "Of which topic are the failures?",
    }

    http_requests: CounterByNames {
        named: "gamemesh_http_requests",
        scope: Replica,
        labels: &[
            Label { name: "method", values: &[] }, Label { name: "path", values: &[] }, Label { name: "status", values: &[] },
        ],
        help: "Requests to the endpoints by route, `other` where there is none; the first 100 combinations, `other` has the rest",
        answers: "Who asks this replica, and what for?",
    }

    http_errors: CounterByNames {
        named: "gamemesh_http_errors",
        scope: Replica,
        labels: &[
            Label { name: "method", values: &[] }, Label { name: "path", values: &[] }, Label { name: "status", values: &[] },
        ],
        help: "Requests to the endpoints that were answered with a status of 400 or more",
        answers: "Does somebody ask in vain: a probe, a page?",
    }

    http_request_duration_seconds: HistogramByNames {
        named: "gamemesh_http_request_duration_seconds",
        scope: Replica,
        labels: &[Label { name: "method", values: &[] }, Label { name: "path", values: &[] }],
        buckets: &ANSWER_BUCKETS,
        help: "Time until the head of an answer was ready",
        answers: "Do probes and scrapes wait?",
    }

    process_cpu_seconds: Total {
        named: "process_cpu_seconds",
        scope: Replica,
        help: "Processor time that the process has used, its own and the kernel's; this and what follows on Linux only",
        answers: "How busy is it?",
    }

    process_resident_memory_bytes: Gauge {
        named: "process_resident_memory_bytes",
        scope: Replica,
        help: "Memory that the process holds",
        answers: "How near is the limit?",
    }

    process_virtual_memory_bytes: Gauge {
        named: "process_virtual_memory_bytes",
        scope: Replica,
        help: "Address space of the process",
        answers: "Does a limit of the address space matter?",
    }

    process_open_fds: Gauge {
        named: "process_open_fds",
        scope: Replica,
        help: "File descriptors that are open, connections included",
        answers: "Does something leak?",
    }

    process_max_fds: Gauge {
        named: "process_max_fds",
        scope: Replica,
        help: "File descriptors that may be open",
        answers: "How many connections can there be?",
    }

    process_start_time_seconds: Seconds {
        named: "process_start_time_seconds",
        scope: Replica,
        help: "Unix time at which the process started",
        answers: "Was it restarted?",
    }
}
