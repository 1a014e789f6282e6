//! What a row is, and what is expected to become of it on each store and bus.

use uuid::Uuid;

/// What becomes of a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Expect {
    /// It arrives as it was inserted.
    Delivered,
    /// It arrives without its carrier: that was no trace context.
    Untraced,
    /// It is a dead letter whose error contains this; the bus never saw it.
    Refused(&'static str),
    /// The relay leaves it as it is.
    Unchanged,
    /// The database refuses it, with this SQLSTATE or, in SQLite, this kind of constraint.
    NotInserted(&'static str),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StoreKind {
    Postgres,
    Sqlite,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BusKind {
    Nats,
    Redis,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Sql(&'static str),
}

impl Value {
    fn sql(&self) -> String {
        match self {
            Self::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Self::Sql(sql) => (*sql).to_owned(),
        }
    }
}

/// One row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub name: String,
    id: Option<Uuid>,
    columns: Vec<(&'static str, Value)>,
    /// The last that holds for a store and a bus counts.
    expected: Vec<(Option<StoreKind>, Option<BusKind>, Expect)>,
    only: Option<StoreKind>,
    not: Option<(StoreKind, BusKind)>,
}

impl Row {
    pub(super) fn new(name: &str) -> Self {
        let expected = vec![(None, None, Expect::Delivered)];
        Self { name: name.to_owned(), id: None, columns: Vec::new(), expected, only: None, not: None }
    }

    pub(super) fn with(mut self, column: &'static str, value: &str) -> Self {
        self.columns.push((column, Value::Text(value.to_owned())));
        self
    }

    pub(super) fn with_sql(mut self, column: &'static str, value: &'static str) -> Self {
        self.columns.push((column, Value::Sql(value)));
        self
    }

    pub(super) fn with_id(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }

    pub(super) fn expect(self, expected: Expect) -> Self {
        self.expect_on(None, None, expected)
    }

    pub(super) fn nats(self, expected: Expect) -> Self {
        self.expect_on(None, Some(BusKind::Nats), expected)
    }

    pub(super) fn postgres(self, expected: Expect) -> Self {
        self.expect_on(Some(StoreKind::Postgres), None, expected)
    }

    pub(super) fn sqlite(self, expected: Expect) -> Self {
        self.expect_on(Some(StoreKind::Sqlite), None, expected)
    }

    pub(super) fn postgres_nats(self, expected: Expect) -> Self {
        self.expect_on(Some(StoreKind::Postgres), Some(BusKind::Nats), expected)
    }

    pub(super) fn only_postgres(mut self) -> Self {
        self.only = Some(StoreKind::Postgres);
        self
    }

    pub(super) fn only_sqlite(mut self) -> Self {
        self.only = Some(StoreKind::Sqlite);
        self
    }

    pub(super) fn not_postgres_with_redis(mut self) -> Self {
        self.not = Some((StoreKind::Postgres, BusKind::Redis));
        self
    }

    fn expect_on(mut self, store: Option<StoreKind>, bus: Option<BusKind>, expected: Expect) -> Self {
        self.expected.push((store, bus, expected));
        self
    }

    /// Returns what is expected, or `None` where the row has no meaning.
    pub(super) fn on(&self, store: StoreKind, bus: BusKind) -> Option<Expect> {
        let holds = |of_store: Option<StoreKind>, of_bus: Option<BusKind>| {
            of_store.is_none_or(|it| it == store) && of_bus.is_none_or(|it| it == bus)
        };
        let expected = self.expected.iter().rfind(|(of_store, of_bus, _)| holds(*of_store, *of_bus));
        let meant = self.only.is_none_or(|only| only == store) && self.not != Some((store, bus));
        expected.map(|(_, _, expected)| *expected).filter(|_| meant)
    }

    pub(super) fn id(&self, number: usize) -> Uuid {
        self.id.unwrap_or_else(|| numbered(1, number))
    }

    /// Writes the `INSERT` of a producer that knows no library.
    pub(super) fn insert(&self, id: Uuid) -> String {
        let mut columns = vec![
            ("id", format!("'{id}'")),
            ("topic", "'events.player'".to_owned()),
            ("event_type", "'tried'".to_owned()),
            ("payload", "'1'".to_owned()),
        ];
        for (name, value) in &self.columns {
            match columns.iter_mut().find(|(column, _)| column == name) {
                Some(column) => column.1 = value.sql(),
                None => columns.push((name, value.sql())),
            }
        }
        let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        format!("INSERT INTO outbox_events ({}) VALUES ({})", names.join(", "), values.join(", "))
    }
}

pub(super) fn numbered(family: u64, number: usize) -> Uuid {
    Uuid::from_u128(u128::from(family) << 96 | 0x7000_8000_0000_0000_0000 | number as u128)
}

pub(super) struct Limits {
    pub payload_bytes: usize,
    nats_message_bytes: usize,
}

/// The relay's default limit, and that of a NATS server.
pub(super) const LIMITS: Limits = Limits { payload_bytes: 8 << 20, nats_message_bytes: 1 << 20 };
/// When the rows whose size is exact were created: a time has more or fewer digits.
pub(super) const CREATED_AT: &str = "2026-01-02T03:04:05Z";

impl Limits {
    /// Returns the largest payload that fits into a message of NATS beside the rest of its envelope and its headers.
    pub(super) fn nats_payload_bytes(&self) -> usize {
        let id = Uuid::nil();
        let envelope = format!(r#"{{"id":"{id}","type":"tried","timestamp":"{CREATED_AT}","payload":}}"#);
        let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
        self.nats_message_bytes - envelope.len() - headers.len()
    }
}
