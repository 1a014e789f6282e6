//! Files of records, with all that may stand in them.

use std::collections::BTreeMap;
use std::fmt::Debug;

use gamemesh_outbox::store::dead_letters::Action;
use gamemesh_outbox::store::{OnPublished, Status};
use jiff::Timestamp;
use outbox_testkit::checker::{Rule, check};
use outbox_testkit::history::{
    Change, Configuration, Counters, Delivery, Digest, Envelope, Exit, Facts, Fault, FaultRecord, History, Inserted,
    Op, Payload, ReceiptKind, Recorder, RelayEvent, RelayRecord, RelayRun, Rest, Row, SettleKind, Stored, Target,
    Transaction, TransactionOutcome,
};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use tempfile::TempDir;
use uuid::Uuid;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![".*", any::<String>(), Just("\n\r\u{0}\u{2028}\"\\'".to_owned())]
}

/// Mostly few, so that records meet.
fn id() -> impl Strategy<Value = Uuid> {
    prop_oneof![9 => 0..4_u128, 1 => any::<u128>()].prop_map(Uuid::from_u128)
}

fn headers() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text(), text(), 0..3)
}

fn payload() -> impl Strategy<Value = Payload> {
    any::<([u8; 32], u64)>().prop_map(|(sha256, bytes)| Payload { sha256: Digest(sha256), bytes })
}

fn time() -> impl Strategy<Value = Timestamp> {
    let range = Timestamp::MIN.as_nanosecond()..=Timestamp::MAX.as_nanosecond();
    prop_oneof![
        range.prop_map(|at| Timestamp::from_nanosecond(at).unwrap()),
        Just(Timestamp::MIN),
        Just(Timestamp::MAX),
    ]
}

fn run() -> impl Strategy<Value = RelayRun> {
    let name = prop_oneof![9 => "relay-[12]", 1 => text()];
    (name, 1..3_u32).prop_map(|(name, run)| RelayRun { name, run })
}

fn inserted() -> impl Strategy<Value = Inserted> {
    let stored = (payload(), time()).prop_map(|(payload, created_at)| Stored { payload, created_at });
    let names = (id(), text(), text(), of(text()));
    (names, headers(), headers(), payload(), of(stored), any::<bool>()).prop_map(
        |((id, topic, event_type, key), headers, carrier, payload, stored, poison)| Inserted {
            id,
            topic,
            event_type,
            key,
            headers,
            carrier,
            payload,
            stored,
            poison,
        },
    )
}

fn transaction() -> impl Strategy<Value = Transaction> {
    use TransactionOutcome::{Aborted, Committed, Unknown};
    let outcome = select(vec![Committed, Aborted, Unknown]);
    (any::<[u64; 3]>(), text(), outcome, vec(inserted(), 0..3)).prop_map(
        |([at, began, number], producer, outcome, events)| Transaction { at, began, producer, number, outcome, events },
    )
}

fn row() -> impl Strategy<Value = Row> {
    let status = select(vec![Status::Pending, Status::Published, Status::Failed]);
    let digest = any::<[u8; 32]>().prop_map(Digest);
    (id(), status, any::<i32>(), [time(), time()], of(time()), of(payload()), of(digest)).prop_map(
        |(id, status, attempt_count, [created_at, available_at], published_at, payload, content)| Row {
            id,
            status,
            attempt_count,
            created_at,
            available_at,
            published_at,
            payload,
            content,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    let audit = (id(), id(), select(Action::ALL.to_vec()));
    let op = prop_oneof![
        row().prop_map(Op::Insert),
        row().prop_map(Op::Update),
        id().prop_map(|id| Op::Delete { id }),
        audit.prop_map(|(event_id, request_id, action)| Op::Audit { event_id, request_id, action }),
    ];
    (any::<[u64; 2]>(), any::<u32>(), op).prop_map(|([at, lsn], xid, op)| Change { at, lsn, xid, op })
}

fn delivery() -> impl Strategy<Value = Delivery> {
    let envelope =
        (id(), text(), text(), payload(), headers()).prop_map(|(id, event_type, timestamp, payload, carrier)| {
            Envelope { id, event_type, timestamp, payload, carrier }
        });
    (any::<[u64; 2]>(), id(), [text(), text()], of(text()), headers(), of(envelope)).prop_map(
        |([at, position], id, [stream, subject], key, headers, envelope)| Delivery {
            at,
            stream,
            position,
            id,
            subject,
            key,
            headers,
            envelope,
        },
    )
}

fn relay_record() -> impl Strategy<Value = RelayRecord> {
    let number = || prop_oneof![9 => 1..3_u64, 1 => any::<u64>()];
    let event = prop_oneof![
        Just(RelayEvent::Started),
        Just(RelayEvent::StopRequested),
        any::<i32>().prop_map(|code| RelayEvent::Exited(Exit::Code(code))),
        any::<i32>().prop_map(|signal| RelayEvent::Exited(Exit::Signal(signal))),
        (number(), number(), vec(id(), 0..4)).prop_map(|(claim, took, ids)| RelayEvent::Claimed { claim, took, ids }),
        number().prop_map(|claim| RelayEvent::Sending { claim }),
        (number(), vec(select(ReceiptKind::ALL.to_vec()), 0..9))
            .prop_map(|(claim, receipts)| RelayEvent::Receipts { claim, receipts }),
        (number(), vec(select(SettleKind::ALL.to_vec()), 0..9))
            .prop_map(|(claim, outcomes)| RelayEvent::Settling { claim, outcomes }),
        (number(), number(), vec(id(), 0..3), vec(id(), 0..3)).prop_map(
            |(claim, published, dead_lettered, unwritten)| RelayEvent::Settled {
                claim,
                published,
                dead_lettered,
                unwritten
            }
        ),
        number().prop_map(|claim| RelayEvent::Abandoned { claim }),
    ];
    (any::<u64>(), run(), event).prop_map(|(at, relay, event)| RelayRecord { at, relay, event })
}

fn configuration() -> impl Strategy<Value = Configuration> {
    let on_published = select(vec![OnPublished::Mark, OnPublished::Delete]);
    (any::<u32>(), any::<bool>(), on_published, of(any::<u64>()), any::<[u64; 2]>()).prop_map(
        |(attempts_max, charges_all, on_published, retention, [retry_max, settle_max])| Configuration {
            attempts_max,
            charges_all,
            on_published,
            retention,
            retry_max,
            settle_max,
        },
    )
}

fn fault_record() -> impl Strategy<Value = FaultRecord> {
    let target = || prop_oneof![Just(Target::Database), Just(Target::Bus), run().prop_map(Target::Relay)];
    let operator = (id(), select(Action::ALL.to_vec()), of(vec(id(), 0..3)));
    let fault = prop_oneof![
        run().prop_map(Fault::Kill),
        target().prop_map(Fault::Outage),
        target().prop_map(Fault::Freeze),
        (of(text()), target()).prop_map(|(relay, server)| Fault::Cut { relay, server }),
        Just(Fault::SessionsEnded),
        (run(), any::<i64>()).prop_map(|(relay, ahead)| Fault::ClockShifted { relay, ahead }),
        operator.prop_map(|(request_id, action, ids)| Fault::Operator { request_id, action, ids }),
        configuration().prop_map(Fault::Configured),
    ];
    (any::<u64>(), of(any::<u64>()), fault, text()).prop_map(|(at, until, fault, details)| FaultRecord {
        at,
        until,
        fault,
        details,
    })
}

fn facts() -> impl Strategy<Value = Facts> {
    let attempts = btree_map(select(ReceiptKind::ALL.to_vec()), any::<u64>(), 0..6);
    let counters = (run(), any::<[u64; 3]>(), attempts).prop_map(
        |(relay, [published, publish_failures, dead_lettered], attempts)| Counters {
            relay,
            published,
            publish_failures,
            dead_lettered,
            attempts,
        },
    );
    let rest = (any::<[u64; 3]>(), vec(counters, 0..3)).prop_map(|([at, pending, failed], relays)| Rest {
        at,
        pending,
        failed,
        relays,
    });
    (configuration(), any::<u64>(), of(any::<u64>()), any::<bool>(), of(rest)).prop_map(
        |(configuration, clock_tolerance, dedup_window, relays_trace, rest)| Facts {
            configuration,
            clock_tolerance,
            dedup_window,
            relays_trace,
            rest,
        },
    )
}

fn history() -> impl Strategy<Value = History> {
    let sources = (
        vec(transaction(), 0..3),
        vec(change(), 0..9),
        vec(delivery(), 0..6),
        vec(relay_record(), 0..20),
        vec(fault_record(), 0..4),
    );
    (sources, facts()).prop_map(|((producers, database, bus, relays, faults), facts)| History {
        producers,
        database,
        bus,
        relays,
        faults,
        facts,
    })
}

fn same<T: PartialEq + Debug>(a: &T, b: &T) -> Result<(), TestCaseError> {
    prop_assert_eq!(a, b);
    Ok(())
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(history in history()) {
        let folder = TempDir::new()?;
        history.write(folder.path()).unwrap();
        same(&History::read(folder.path()).unwrap(), &history)?;
    }

    #[test]
    fn a_recorder_keeps_the_same_in_files_as_in_memory(history in history()) {
        let folder = TempDir::new()?;
        for recorder in [Recorder::in_memory(), Recorder::in_folder(folder.path()).unwrap()] {
            history.producers.iter().cloned().for_each(|record| recorder.transaction(record));
            history.database.iter().cloned().for_each(|record| recorder.change(record));
            history.bus.iter().cloned().for_each(|record| recorder.delivery(record));
            history.relays.iter().cloned().for_each(|record| recorder.relay(record));
            history.faults.iter().cloned().for_each(|record| recorder.fault(record));
            same(&recorder.finish(history.facts.clone()).unwrap(), &history)?;
        }
    }
}

proptest! {
    #[test]
    fn whatever_the_records_say_the_checker_answers(history in history()) {
        let report = check(&history);
        prop_assert_eq!(report.rules.len(), Rule::ALL.len());
        prop_assert!(report.to_string().contains("Evidence"));
        serde_json::to_string(&report).unwrap();
    }
}

#[test]
fn a_file_that_is_missing_or_ends_in_the_middle_is_an_error_that_says_where() {
    let folder = TempDir::new().unwrap();
    let error = format!("{:#}", History::read(folder.path()).unwrap_err());
    assert!(error.contains("facts.jsonl"), "{error}");
    History::default().write(folder.path()).unwrap();
    History::read(folder.path()).unwrap();
    for (content, problem) in [("{\"at\":1", "line 1: expected the end of the line"), ("{}\n", "line 1")] {
        std::fs::write(folder.path().join("relays.jsonl"), content).unwrap();
        let error = format!("{:#}", History::read(folder.path()).unwrap_err());
        assert!(error.contains("relays.jsonl") && error.contains(problem), "{error}");
    }
}
