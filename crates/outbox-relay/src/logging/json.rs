//! A line of the log as one JSON object, by the names that the earlier relay's logs have: `level`, `ts`, `msg`, `service`.

use std::fmt::{self, Debug};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::ser::{CompactFormatter, Compound};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Writes events of the relay that has this name.
#[derive(Clone)]
pub(super) struct JsonLines {
    service: Arc<str>,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut msg = Msg::default();
        event.record(&mut msg);
        writer.write_str(&self.line(event.metadata(), &msg.0, |fields| event.record(fields)))
    }
}

impl JsonLines {
    pub(super) fn of(service: &str) -> Self {
        Self { service: service.into() }
    }

    /// Writes one line; `add` adds its fields.
    pub(super) fn line(&self, metadata: &Metadata<'_>, msg: &str, add: impl FnOnce(&mut Fields<'_>)) -> String {
        self.try_line(metadata, msg, add).expect("texts and numbers always serialize")
    }

    fn try_line(
        &self,
        metadata: &Metadata<'_>,
        msg: &str,
        add: impl FnOnce(&mut Fields<'_>),
    ) -> Result<String, serde_json::Error> {
        let mut line = Vec::with_capacity(256);
        let mut serializer = serde_json::Serializer::new(&mut line);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("level", level(*metadata.level()))?;
        map.serialize_entry("ts", &format_args!("{:.6}", Timestamp::now()))?;
        map.serialize_entry("msg", msg)?;
        map.serialize_entry("service", &*self.service)?;
        let mut fields = Fields { map, failed: None };
        add(&mut fields);
        let Fields { mut map, failed } = fields;
        failed.map_or(Ok(()), Err)?;
        map.serialize_entry("target", metadata.target())?;
        map.end()?;
        line.push(b'\n');
        Ok(String::from_utf8(line).expect("JSON is text"))
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

const MESSAGE: &str = "message";

/// The message, which tracing has among the fields.
#[derive(Default)]
struct Msg(String);

impl Visit for Msg {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == MESSAGE {
            self.0 = format!("{value:?}");
        }
    }
}

/// Everything else.
pub(super) struct Fields<'a> {
    map: Compound<'a, &'a mut Vec<u8>, CompactFormatter>,
    failed: Option<serde_json::Error>,
}

impl Fields<'_> {
    /// Adds one.
    pub(super) fn entry(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        if self.failed.is_none() {
            self.failed = self.map.serialize_entry(name, value).err();
        }
    }

    fn add(&mut self, field: &Field, value: &(impl Serialize + ?Sized)) {
        if field.name() != MESSAGE {
            // A raw identifier is a name that Rust keeps for itself.
            self.entry(field.name().trim_start_matches("r#"), value);
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, &format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, &value);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use serde_json::{Value, json};
    use tracing::{error, warn};
    use tracing_subscriber::fmt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_the_names_of_the_earlier_relay_and_its_fields_beside_them() {
        let written = Written::default();
        let (writer, lines) = (written.clone(), JsonLines::of("shop"));
        let subscriber = fmt().with_writer(move || writer.clone()).event_format(lines).finish();
        let listening = outbox_testkit::listen(subscriber);
        warn!(event_id = %7, attempt = 3, share = 0.5, stopping = false, error = "a \"b\"\n", r#type = ?Some(1), "not {}", "sent");
        error!("bad");
        drop(listening);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [line, bad] = &lines[..] else { panic!("{text}") };
        let expected = json!({
            "level": "warn", "ts": line["ts"], "msg": "not sent", "service": "shop", "event_id": "7", "attempt": 3,
            "share": 0.5, "stopping": false, "error": "a \"b\"\n", "type": "Some(1)", "target": module_path!(),
        });
        assert_eq!(*line, expected);
        assert!(text.starts_with(r#"{"level":"warn","ts":"2"#), "{text}");
        assert!(line["ts"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert_eq!((&bad["level"], &bad["msg"]), (&json!("error"), &json!("bad")));
    }
}
