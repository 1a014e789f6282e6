//! The program's settings: environment first, then an optional TOML file, then defaults.

mod came_to;
mod contradictions;
#[cfg(test)]
mod fuzz;
mod general;
#[cfg(test)]
mod page;
pub(crate) mod reference;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

#[cfg(feature = "read-back")]
use gamemesh_outbox::bus::read_back::ReadBack;
use gamemesh_outbox::diagnosis::{Demands, Finding};
use gamemesh_outbox::relay::{Backoff, RelayConfig};
use gamemesh_outbox::validate::Validator;

pub(crate) use self::came_to::CameTo;
use self::contradictions::least_and_most;
#[cfg(feature = "read-back")]
use crate::adapters::OwnPlace;
use crate::adapters::{self, Bus, BusAdapter, BusDemands, EarlierMeaning, OpenStore, Opening, StoreAdapter};
use crate::report::CommandError;
use crate::settings::contradictions::{Consequence, is_chosen};
use crate::settings::load::{ConfigError, Layer, Values};
use crate::settings::types::{LogFormat, LogLevel, Sampler, Secret};
use crate::settings::{About, Setting};

/// Every setting, in the order of the reference.
pub(crate) static ALL: LazyLock<Vec<&'static About>> = LazyLock::new(|| {
    let stores = adapters::STORES.iter().flat_map(|store| store.settings());
    let buses = adapters::BUSES.iter().flat_map(|bus| bus.settings());
    let general = general::OUTBOX.iter().chain(stores).chain(general::DATABASE);
    general.chain(buses).chain(general::SERVICE).copied().collect()
});

/// Every setting, checked. `Debug` shows no secret.
#[derive(Debug)]
pub struct Config {
    /// Whether the relay works at all.
    pub(crate) enabled: bool,
    /// How the relay works.
    pub relay: RelayConfig,
    /// How long PUBLISHED rows stay; `None` is for ever.
    pub(crate) retention: Option<Duration>,
    database: Option<Database>,
    bus: &'static dyn BusAdapter,
    /// Where endpoints are served.
    pub(crate) http: SocketAddr,
    pub(crate) admin: AdminSettings,
    pub(crate) otel: OtelSettings,
    pub(crate) log: LogSettings,
    /// Whether `run` brings the schema up to date.
    pub(crate) auto_migrate: bool,
    /// What was set by a name of the earlier system and means something else here, one line each.
    told: Vec<String>,
    /// What the adapters read their own settings from.
    values: Values,
}

/// Which database holds the outbox.
#[derive(Debug)]
struct Database {
    adapter: &'static dyn StoreAdapter,
    place: Secret,
    /// The file that `place` came from.
    file: Option<PathBuf>,
}

/// Who may change something over HTTP.
#[derive(Debug)]
pub(crate) struct AdminSettings {
    pub token: Option<Secret>,
    pub hosts: Vec<String>,
}

/// The settings of OpenTelemetry.
#[derive(Debug)]
pub(crate) struct OtelSettings {
    pub enabled: bool,
    pub service_name: String,
    pub service_version: Option<String>,
    /// Where it runs: production, say.
    pub environment: Option<String>,
    pub endpoint: String,
    pub sampler: Sampler,
    pub sampler_ratio: f64,
}

/// The settings of logs.
#[derive(Debug)]
pub(crate) struct LogSettings {
    /// `None`: it depends on the command.
    pub level: Option<LogLevel>,
    /// `None`: it depends on the command and on the terminal.
    pub format: Option<LogFormat>,
}

impl Config {
    /// Reads the settings, or says everything that is wrong with them.
    pub fn load(
        environment: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let values = Values::load(&ALL, adapters::LEFT_OUT, environment, file)?;
        let relay = relay(&values);
        let (bus, instead) = bus(&values);
        let problems = problems(&values, &relay, bus, Consequence::Refused);
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        Ok(Self {
            enabled: values.get(&general::ENABLED),
            relay,
            retention: values.optional(&general::RETENTION),
            database: database(&values),
            bus,
            http: SocketAddr::new(values.get(&general::HTTP_ADDRESS), values.get(&general::HTTP_PORT)),
            admin: AdminSettings {
                token: values.optional(&general::ADMIN_TOKEN),
                hosts: values.optional(&general::HTTP_HOSTS).unwrap_or_default(),
            },
            otel: OtelSettings {
                enabled: values.optional(&general::OTEL_ENABLED).unwrap_or(is_chosen(&values, &general::OTEL_ENDPOINT)),
                service_name: values.get(&general::OTEL_SERVICE_NAME),
                service_version: values.optional(&general::SERVICE_VERSION),
                environment: values.optional(&general::APP_ENV),
                endpoint: values.get(&general::OTEL_ENDPOINT),
                sampler: values.get(&general::OTEL_SAMPLER),
                sampler_ratio: values.get(&general::OTEL_SAMPLER_ARG),
            },
            log: LogSettings {
                level: values.optional(&general::LOG_LEVEL),
                format: values.optional(&general::LOG_FORMAT),
            },
            auto_migrate: values.get(&general::AUTO_MIGRATE),
            told: values.passed_over().iter().cloned().chain(instead).collect(),
            values,
        })
    }

    /// Lists the files that hold secrets, with the names that led to them.
    pub(crate) fn secret_files(&self) -> Vec<(String, PathBuf)> {
        self.values.secret_files()
    }

    /// Says which settings do not work as they say because of another one.
    pub(crate) fn contradictions(&self) -> Vec<String> {
        problems(&self.values, &self.relay, self.bus, Consequence::Told)
    }

    /// Says which variables of the earlier relay are set to something that is not used as it stands.
    pub(crate) fn reinterpreted(&self) -> &[String] {
        &self.told
    }

    /// Says what is wrong with where the database and the bus are, as far as that can be known without a connection.
    pub(crate) fn check(&self) -> Result<(), CommandError> {
        if let Some(database) = &self.database {
            database.adapter.check(&database.place)?;
        }
        self.bus.check(&self.values, self.bus_demands())
    }

    /// Returns the store that holds the outbox, which most commands cannot do without.
    pub(crate) fn store(&self) -> Result<&'static dyn StoreAdapter, ConfigError> {
        Ok(self.database()?.adapter)
    }

    /// Opens the store. `create` makes a database file that is missing.
    pub(crate) async fn open_store(&self, create: bool) -> Result<OpenStore, CommandError> {
        let database = self.database()?;
        let opening = Opening {
            values: &self.values,
            place: &database.place,
            file: database.file.clone(),
            workers: self.relay.workers,
            on_published: self.relay.on_published,
            create,
        };
        database.adapter.open(opening).await
    }

    /// Connects to the bus. One that is down is no error: the relay waits for it.
    pub async fn connect_bus(&self) -> Result<Arc<dyn Bus>, CommandError> {
        self.bus.connect(&self.values, self.bus_demands()).await
    }

    /// Examines `bus`.
    pub(crate) async fn diagnose_bus(&self, bus: &dyn Bus, demands: &Demands) -> Vec<Finding> {
        self.bus.diagnose(&self.values, bus, demands).await
    }

    /// Returns how long the bus remembers ids and drops an event that comes again; zero if it does not.
    pub(crate) fn duplicate_window(&self) -> Duration {
        self.bus.duplicate_window(&self.values)
    }

    /// Returns the value of `EVENT_BUS`.
    pub fn bus_name(&self) -> &'static str {
        self.bus.name()
    }

    /// Returns the kind of store and where it is.
    pub fn store_place(&self) -> Result<(&'static str, &Secret), ConfigError> {
        let database = self.database()?;
        Ok((database.adapter.name(), &database.place))
    }

    /// Returns what a setting came to, as somebody wrote it; `None` for one that is unset, unknown or a secret.
    pub fn shown(&self, env: &str) -> Option<&str> {
        self.values.shown(env)
    }

    /// Returns what to set so that the bus has this place.
    #[cfg(feature = "read-back")]
    pub fn set_place(&self, place: OwnPlace) -> Vec<(&'static str, String)> {
        self.bus.set_place(place)
    }

    /// Reads that place back, if the bus lets itself be read.
    #[cfg(feature = "read-back")]
    pub async fn read_back(&self, place: OwnPlace) -> Result<Option<Box<dyn ReadBack>>, CommandError> {
        self.bus.read_back(&self.values, self.bus_demands(), place).await
    }

    fn bus_demands(&self) -> BusDemands {
        BusDemands {
            publish_timeout: self.relay.publish_timeout,
            require_durable: self.values.get(&general::REQUIRE_DURABLE),
        }
    }

    fn database(&self) -> Result<&Database, ConfigError> {
        self.database.as_ref().ok_or_else(|| {
            let own = adapters::STORES.iter().filter_map(|store| store.own_setting()).map(|setting| &setting.about);
            let choices = own.chain([&general::DATABASE_URL.about]);
            let choices = choices.map(|about| format!("{} ({})", about.env, about.expected()));
            ConfigError::from(format!("no database: set {}", general::one_of(choices)))
        })
    }
}

/// Lists what contradicts what, in the settings of this relay and of the bus that they choose.
fn problems(
    values: &Values,
    relay: &RelayConfig,
    bus: &'static dyn BusAdapter,
    consequence: Consequence,
) -> Vec<String> {
    let all = contradictions::CONTRADICTIONS.iter().chain(bus.contradictions());
    all.filter(|rule| rule.consequence == consequence).filter_map(|rule| rule.problem(values, relay)).collect()
}

/// Chooses the bus, and says why where that is another one than its name says.
fn bus(values: &Values) -> (&'static dyn BusAdapter, Option<String>) {
    let chosen = values.get(&general::EVENT_BUS);
    let (name, title) = (chosen.name(), chosen.about().title);
    let written = values.shown(general::EVENT_BUS.about.env);
    let could_be_theirs = values.layer(&general::EVENT_BUS) == Some(Layer::Environment)
        && written.is_some_and(|written| written.eq_ignore_ascii_case(name));
    let other = chosen.earlier_meaning().filter(|other| could_be_theirs && !(other.is_ours)(values));
    let instead = other.and_then(|other| Some((adapters::bus_named(other.instead)?, other)));
    let Some((bus, EarlierMeaning { unambiguous, instead, means, .. })) = instead else { return (chosen, None) };
    let told = format!(
        "EVENT_BUS={name}: {instead} is used, to which the earlier relay publishes whatever EVENT_BUS says; there {name} means \
         {means}: it is not offered; for {title} set EVENT_BUS={unambiguous}"
    );
    (bus, Some(told))
}

/// Chooses the database: the environment goes before the file, and in each of them a store's own setting before
/// `DATABASE_URL`.
fn database(values: &Values) -> Option<Database> {
    let named = |setting: &Setting<Secret>, adapter: Option<&'static dyn StoreAdapter>| {
        let (layer, place) = (values.layer(setting)?, values.optional(setting)?);
        let adapter = adapter.or_else(|| adapters::store_for(place.expose()))?;
        Some((layer, Database { adapter, place, file: values.file(setting) }))
    };
    let own = adapters::STORES.iter().filter_map(|store| named(store.own_setting()?, Some(*store)));
    let mut found: Vec<(Layer, Database)> = own.chain(named(&general::DATABASE_URL, None)).collect();
    // A stable sort: among those of one layer the first stays the first.
    found.sort_by_key(|(layer, _)| std::cmp::Reverse(*layer));
    found.into_iter().next().map(|(_, database)| database)
}

fn relay(values: &Values) -> RelayConfig {
    let defaults = RelayConfig::default();
    let outage_max = values.get(&general::OUTAGE_BACKOFF_MAX);
    let (retry_initial, retry_max) = least_and_most(values, &general::RETRY_BACKOFF, &general::RETRY_BACKOFF_MAX);
    let (batch_size, batch_size_max) = least_and_most(values, &general::BATCH_SIZE, &general::BATCH_SIZE_MAX);
    RelayConfig {
        batch_size,
        batch_size_max,
        batch_bytes: values.get(&general::BATCH_BYTES),
        workers: values.get(&general::WORKERS).min(values.get(&general::WORKERS_MAX)),
        poll_interval: values.get(&general::POLL_INTERVAL),
        attempts_max: values.get(&general::MAX_ATTEMPTS),
        charge: values.get(&general::CHARGE),
        charge_routes_after: values.optional(&general::CHARGE_ROUTES_AFTER),
        on_published: values.get(&general::ON_PUBLISHED),
        publish_timeout: values.get(&general::PUBLISH_TIMEOUT),
        retry: Backoff { initial: retry_initial, max: retry_max },
        outage: Backoff { initial: defaults.outage.initial.min(outage_max), max: outage_max },
        drain_timeout: values.get(&general::DRAIN_TIMEOUT),
        backlog_interval: defaults.backlog_interval,
        validator: Validator {
            topic_prefixes: values.optional(&general::TOPIC_PREFIXES).unwrap_or_default(),
            payload_bytes_max: values.get(&general::PAYLOAD_BYTES_MAX),
        },
    }
}
