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
    /// Where the buckets of a histogram end.
    pub(super) buckets: &'static [f64],
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
