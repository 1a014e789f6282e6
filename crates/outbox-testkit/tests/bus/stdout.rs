//! What a writer does that other buses do not.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gamemesh_outbox::bus::BusErrorKind::{Unavailable, Unknown};
use gamemesh_outbox::bus::BusPublisher;
use gamemesh_outbox::bus::stdout::StdoutBus;
use gamemesh_outbox::store::HealthCheck;
use outbox_testkit::bus_suite::event;

use super::{kinds, text};

/// A disk that takes a few bytes and is full then, until it is given more room.
#[derive(Clone)]
struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

impl Disk {
    fn with_room(room: usize) -> Self {
        Self(Arc::new(Mutex::new((Vec::new(), room))))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (written, room) = &mut *self.0.lock().unwrap();
        if *room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let count = bytes.len().min(*room);
        written.extend_from_slice(&bytes[..count]);
        *room -= count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_closed_pipe_is_unavailable() {
    let (reader, writer) = io::pipe().unwrap();
    let bus = StdoutBus::new(writer);
    assert_eq!(kinds(&bus.publish(&[event("events.player", "registered")]).await), [None]);
    drop(reader);
    let receipts = bus.publish(&[event("events.player", "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(Unavailable)]);
    assert!(text(&receipts).to_lowercase().contains("broken pipe"), "{}", text(&receipts));
    assert_eq!(bus.check().await, Err("nobody reads the output any more".into()));
}

#[tokio::test]
async fn a_line_that_was_torn_does_not_spoil_the_next() {
    let disk = Disk::with_room(10);
    let bus = StdoutBus::new(disk.clone());
    assert_eq!(kinds(&bus.publish(&[event("events.player", "registered")]).await), [Some(Unavailable)]);
    disk.0.lock().unwrap().1 = usize::MAX;
    assert_eq!(kinds(&bus.publish(&[event("events.player", "registered")]).await), [None]);
    assert_eq!(bus.check().await, Ok(()));
    let written = disk.text();
    let lines: Vec<&str> = written.lines().collect();
    assert_eq!(lines.len(), 2, "{written}");
    assert!(serde_json::from_str::<serde_json::Value>(lines[1]).is_ok(), "{written}");
}

#[tokio::test]
async fn a_payload_with_line_breaks_stays_on_one_line() {
    let disk = Disk::with_room(usize::MAX);
    let mut event = event("events.player", "registered");
    event.payload = "{\r\n  \"name\": \"Ada\"\n}".into();
    assert_eq!(kinds(&StdoutBus::new(disk.clone()).publish(&[event]).await), [None]);
    let written = disk.text();
    assert_eq!(written.lines().count(), 1, "{written}");
    let line: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(line["envelope"]["payload"]["name"], "Ada");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_nobody_reads_is_unknown_and_then_unavailable() {
    let (mut reader, writer) = io::pipe().unwrap();
    let bus = StdoutBus::new(writer).publish_timeout(Duration::from_millis(100));
    let mut large = event("events.player", "registered");
    large.payload = format!("\"{}\"", "x".repeat(1024 * 1024)).into();
    let stuck = kinds(&bus.publish(&[large]).await);
    let behind = kinds(&bus.publish(&[event("events.player", "registered")]).await);
    assert_eq!(bus.check().await, Err("nobody reads the output".into()));
    // Lets the stuck write, and with it the test, end.
    let reading = std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
    assert_eq!((stuck, behind), (vec![Some(Unknown)], vec![Some(Unavailable)]));
    drop(bus);
    assert!(reading.join().unwrap().unwrap() > 1024 * 1024);
}
