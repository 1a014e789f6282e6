//! The stores and buses there are, each in one file: its settings, and how it is built from them.
//!
//! Whoever adds one writes its file and its line in [`BUSES`] or [`STORES`]; docs/adding-an-adapter.md tells the rest.

#[cfg(feature = "nats")]
mod nats;
#[cfg(test)]
mod page;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stdout;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
#[cfg(feature = "read-back")]
use gamemesh_outbox::bus::read_back::ReadBack;
use gamemesh_outbox::bus::{self, BusPublisher, TlsFiles};
use gamemesh_outbox::diagnosis::{Demands, Diagnose, Finding};
use gamemesh_outbox::store::dead_letters::DeadLetters;
use gamemesh_outbox::store::overview::Overviews;
use gamemesh_outbox::store::schema::{Migration, Schema};
use gamemesh_outbox::store::{self, HealthCheck, OnPublished, Prune, Store};
use gamemesh_outbox::{NewEvent, OutboxPublisher, error_chain};

use crate::report::CommandError;
use crate::settings::contradictions::Contradiction;
use crate::settings::load::Values;
use crate::settings::types::Secret;
use crate::settings::{About, Setting};

/// Lists adapters by the feature that builds them, and those that are left out.
macro_rules! registry {
    ($(
        $(#[$doc:meta])*
        $list:ident: $kind:ty { $($feature:literal => $adapter:expr,)* $(always $always:expr,)* }
    )*) => {
        $($(#[$doc])* pub(crate) static $list: &[&$kind] = &[
            $(#[cfg(feature = $feature)] &$adapter,)*
            $(&$always,)*
        ];)*
        /// The names of those that this build leaves out, which are those of their features.
        pub(crate) static LEFT_OUT: &[&str] = &[$($(#[cfg(not(feature = $feature))] $feature,)*)*];
    };
}

registry! {
    /// Every bus of this build, in the order of the reference.
    BUSES: dyn BusAdapter {
        "nats" => nats::Nats,
        "redis" => redis::Redis,
        always stdout::Stdout,
    }
    /// Every store of this build, in the order of the reference.
    STORES: dyn StoreAdapter {
        "postgres" => postgres::Postgres,
        "sqlite" => sqlite::Sqlite,
    }
}

/// Says that a name is that of an adapter which this build leaves out, and how to have it.
pub(crate) fn left_out(name: &str) -> Option<String> {
    let feature = LEFT_OUT.iter().find(|left_out| left_out.eq_ignore_ascii_case(name))?;
    Some(format!("this program was built without {feature}: build it with `--features {feature}` or `--features full`"))
}

/// Returns the bus that a value of `EVENT_BUS` names.
pub(crate) fn bus_named(name: &str) -> Option<&'static dyn BusAdapter> {
    let is = |called: &str| called.eq_ignore_ascii_case(name);
    BUSES.iter().copied().find(|bus| is(bus.name()) || is(unambiguous(*bus)))
}

/// What the earlier system means by a bus's name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EarlierMeaning {
    /// The value of `EVENT_BUS` that means this program's bus and nothing else.
    pub unambiguous: &'static str,
    /// The bus that the earlier relay publishes to, whatever its `EVENT_BUS` says.
    pub instead: &'static str,
    /// What the name means there, and why this program does not do the same.
    pub means: &'static str,
    /// Says whether the settings show that this program's bus is meant: something is set that the earlier system has not.
    pub is_ours: fn(&Values) -> bool,
}

/// Returns the store that the scheme of `url` chooses.
pub(crate) fn store_for(url: &str) -> Option<&'static dyn StoreAdapter> {
    let (scheme, _) = url.split_once(':')?;
    STORES.iter().copied().find(|store| store.schemes().contains(&scheme))
}

/// Everything that the program does with a bus.
pub trait Bus: BusPublisher + HealthCheck + Diagnose {}

impl<B: BusPublisher + HealthCheck + Diagnose> Bus for B {}

/// A place on a bus that nobody else uses.
#[cfg(feature = "read-back")]
#[derive(Clone, Copy, Debug)]
pub struct OwnPlace {
    /// What the place is called, where places have names.
    pub stream: &'static str,
    /// The topic whose events it takes.
    pub topic: &'static str,
}

/// Returns the value of `EVENT_BUS` that means this bus and nothing else.
pub(crate) fn unambiguous(bus: &dyn BusAdapter) -> &'static str {
    bus.earlier_meaning().map_or(bus.name(), |earlier| earlier.unambiguous)
}

/// What is asked of every bus.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BusDemands {
    /// How long an acknowledgement may take.
    pub publish_timeout: Duration,
    /// Whether nothing is published to a place that is known to lose what it acknowledges.
    pub require_durable: bool,
}

/// A kind of bus: what it is called, what can be set, and how it is built.
#[async_trait]
pub(crate) trait BusAdapter: fmt::Debug + Sync {
    /// Returns its value of `EVENT_BUS`.
    fn name(&self) -> &'static str;

    /// Returns what a person should know of it.
    fn about(&self) -> &'static bus::About;

    /// Lists its settings.
    fn settings(&self) -> &'static [&'static About];

    /// Says what else its name can mean, where the earlier system has the same name for something else.
    fn earlier_meaning(&self) -> Option<EarlierMeaning> {
        None
    }

    /// Lists what its settings must be to each other and to those of the relay.
    fn contradictions(&self) -> &'static [Contradiction] {
        &[]
    }

    /// Says how long the bus remembers ids and drops an event that comes again; zero if it does not.
    fn duplicate_window(&self, _: &Values) -> Duration {
        Duration::ZERO
    }

    /// Says what is wrong with its settings, as far as that can be known without a connection.
    fn check(&self, _: &Values, _: BusDemands) -> Result<(), CommandError> {
        Ok(())
    }

    /// Connects. A bus that is down is no error: the relay waits for it.
    async fn connect(&self, values: &Values, demands: BusDemands) -> Result<Arc<dyn Bus>, CommandError>;

    /// Examines the bus, and what belongs to it and is no business of a client.
    async fn diagnose(&self, _: &Values, bus: &dyn Bus, demands: &Demands) -> Vec<Finding> {
        bus.diagnose(demands).await
    }

    /// Returns what to set so that the bus has this place.
    #[cfg(feature = "read-back")]
    fn set_place(&self, _: OwnPlace) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Reads that place back, over a connection as [`connect`](Self::connect) makes it, if the bus lets itself be read.
    #[cfg(feature = "read-back")]
    async fn read_back(
        &self,
        _: &Values,
        _: BusDemands,
        _: OwnPlace,
    ) -> Result<Option<Box<dyn ReadBack>>, CommandError> {
        Ok(None)
    }
}

/// Everything that the program does with a store.
pub(crate) trait OutboxStore: Store + Schema + Prune + DeadLetters + HealthCheck + Overviews + Diagnose {}

impl<S: Store + Schema + Prune + DeadLetters + HealthCheck + Overviews + Diagnose> OutboxStore for S {}

/// A kind of store: what it is called, what can be set, and how it is opened.
#[async_trait]
pub(crate) trait StoreAdapter: fmt::Debug + Sync {
    /// Returns its name on the command line.
    fn name(&self) -> &'static str;

    /// Returns what a person should know of it.
    fn about(&self) -> &'static store::About;

    /// Lists the schemes of `DATABASE_URL` that choose it.
    fn schemes(&self) -> &'static [&'static str];

    /// Lists its settings.
    fn settings(&self) -> &'static [&'static About];

    /// Returns the setting by which it is chosen without a URL, if it has one.
    fn own_setting(&self) -> Option<&'static Setting<Secret>> {
        None
    }

    /// Lists its migrations, which needs no database.
    fn migrations(&self) -> &'static [Migration];

    /// Says what is wrong with where it is, as far as that can be known without a connection.
    fn check(&self, place: &Secret) -> Result<(), CommandError>;

    /// Opens it. Nothing connects that could not come up later.
    async fn open(&self, wanted: Opening<'_>) -> Result<OpenStore, CommandError>;
}

/// How a store is to be opened.
pub(crate) struct Opening<'a> {
    pub values: &'a Values,
    /// Where it is: a URL, or what its own setting says.
    pub place: &'a Secret,
    /// The file that this came from, which is read again for each new connection.
    pub file: Option<PathBuf>,
    /// How many claims are held at the same time.
    pub workers: u32,
    /// What becomes of acknowledged events.
    pub on_published: OnPublished,
    /// Whether a database file that is missing is created.
    pub create: bool,
}

/// A store, and a way to write events into it as an application would.
pub(crate) struct OpenStore {
    pub store: Arc<dyn OutboxStore>,
    pub producer: Box<dyn Producer>,
}

/// Writes events, as an application would.
#[async_trait]
pub(crate) trait Producer: Send + Sync {
    /// Writes everything that `source` has in one transaction.
    async fn emit(&self, publisher: &OutboxPublisher, source: &mut dyn EventSource) -> Result<(), CommandError>;
}

/// Where events come from.
#[async_trait]
pub(crate) trait EventSource: Send {
    /// Returns the next ones; `None` at the end.
    async fn next_batch(&mut self) -> Result<Option<Vec<NewEvent>>, CommandError>;
}

/// Writes what `source` has in `tx`. Whoever called commits, or drops the transaction on an error.
async fn write_all<T: gamemesh_outbox::OutboxTransaction>(
    tx: &mut T,
    publisher: &OutboxPublisher,
    source: &mut dyn EventSource,
) -> Result<(), CommandError> {
    while let Some(batch) = source.next_batch().await? {
        let written = publisher.publish_all(tx, batch).await;
        written.map_err(|error| CommandError::failure("nothing was written", error))?;
    }
    Ok(())
}

/// The certificates that the three settings of a bus name.
fn tls_files(values: &Values, [ca, cert, key]: [&Setting<PathBuf>; 3]) -> TlsFiles {
    TlsFiles { ca: values.optional(ca), cert: values.optional(cert), key: values.optional(key) }
}

/// Says which setting an adapter could not use. Adapters keep secrets out of their errors.
fn invalid(setting: &str, error: &dyn std::error::Error) -> CommandError {
    CommandError::config(format!("{setting}: {}", error_chain(error)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_adapter_has_names_of_its_own() {
        let names = BUSES.iter().map(|bus| bus.name()).chain(STORES.iter().map(|store| store.name()));
        assert_eq!(names.collect::<BTreeSet<_>>().len(), BUSES.len() + STORES.len());
        let schemes: Vec<_> = STORES.iter().flat_map(|store| store.schemes()).collect();
        assert_eq!(schemes.iter().collect::<BTreeSet<_>>().len(), schemes.len());
    }
}
