//! `bench insert`: what an event costs the application that writes it.

use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use outbox_relay::CommandError;
use serde::Serialize;

use crate::args::{Common, duration, say};
use crate::conditions::Conditions;
use crate::load::{self, Form, Load, commit_times, histogram};
use crate::meter::Meter;
use crate::rows::{Payloads, Sample};
use crate::stage::Stage;
use crate::times::Times;

/// Each form twice, in an order in which a machine that slowly changes favours none.
const SLICES: [Form; 8] = [
    Form::BusinessRow,
    Form::Function,
    Form::Library,
    Form::Batch,
    Form::Batch,
    Form::Library,
    Form::Function,
    Form::BusinessRow,
];

/// The arguments of `bench insert`.
#[derive(Args, Debug)]
pub(crate) struct InsertArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How long to measure each form: 10s, 5m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How long each part of it runs before it is measured
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    warm_up: Duration,
    /// Connections of the application; each begins the next transaction when the last one is answered
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) connections: u32,
    /// Events of one transaction in the form for many
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Inserted {
    pub conditions: Conditions,
    pub connections: u32,
    pub seconds: f64,
    #[serde(flatten)]
    pub payload: Sample,
    pub forms: Vec<Cost>,
}

/// What transactions of one form cost.
#[derive(Debug, Serialize)]
pub(crate) struct Cost {
    pub form: Form,
    pub events_per_transaction: u32,
    pub transactions: u64,
    pub transactions_per_second: f64,
    pub transaction: Times,
    pub database_cpu_seconds_per_1000_transactions: Option<f64>,
    pub wal_bytes_per_transaction: f64,
}

/// Measures.
pub(crate) async fn insert(stage: &Stage, args: &InsertArgs) -> Result<Inserted, CommandError> {
    let payloads = Payloads::of(&args.common)?;
    load::create_table(stage).await?;
    let meter = Meter::new(stage, None).await?;
    let mut sums: Vec<Sum> = SLICES[..SLICES.len() / 2].iter().map(|form| Sum::new(*form)).collect();
    for form in SLICES {
        say(&format!("Transactions: {}", described(form, args.batch)));
        let load = Load {
            form,
            batch: args.batch,
            connections: args.connections,
            rate: None,
            warm_up: args.warm_up,
            duration: args.duration / 2,
        };
        let before = meter.read(None).await?;
        let commits = load.run(stage, &payloads.texts).await?;
        let after = meter.read(None).await?;
        let sum = sums.iter_mut().find(|sum| sum.form == form).expect("each form has a sum");
        let (cpu, wal_bytes) = after.since(&before, commits.len() as f64);
        sum.times.add(commit_times(&commits)).expect("it grows as needed");
        sum.cpu = sum.cpu.zip(cpu.database).map(|(sum, part)| sum + part / 2.0);
        sum.wal_bytes += wal_bytes / 2.0;
        load::clear(stage).await?;
    }
    let seconds = args.duration.as_secs_f64();
    Ok(Inserted {
        conditions: Conditions::of(stage, None).await?,
        connections: args.connections,
        seconds,
        payload: payloads.sample,
        forms: sums.into_iter().map(|sum| sum.cost(args.batch, seconds)).collect(),
    })
}

/// Says what a transaction of a form writes.
pub(crate) fn described(form: Form, batch: u32) -> String {
    match form {
        Form::BusinessRow => "a business row alone".to_owned(),
        Form::Function => "and an event by outbox_publish()".to_owned(),
        Form::Library => "and an event by the library".to_owned(),
        Form::Batch => format!("and {batch} events by the library"),
    }
}

struct Sum {
    form: Form,
    times: Histogram<u64>,
    cpu: Option<f64>,
    wal_bytes: f64,
}

impl Sum {
    fn new(form: Form) -> Self {
        Self { form, times: histogram(), cpu: Some(0.0), wal_bytes: 0.0 }
    }

    fn cost(self, batch: u32, seconds: f64) -> Cost {
        let events_per_transaction = match self.form {
            Form::BusinessRow => 0,
            Form::Function | Form::Library => 1,
            Form::Batch => batch,
        };
        Cost {
            form: self.form,
            events_per_transaction,
            transactions: self.times.len(),
            transactions_per_second: self.times.len() as f64 / seconds,
            transaction: Times::of(&self.times),
            database_cpu_seconds_per_1000_transactions: self.cpu,
            wal_bytes_per_transaction: self.wal_bytes,
        }
    }
}
