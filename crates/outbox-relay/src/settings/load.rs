//! Collects settings from the environment and a TOML file, and checks every one of them before anything uses one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value;

use super::{About, Setting};

/// Names the optional TOML file, as `--config` does.
pub const CONFIG_ENV: &str = "OUTBOX_CONFIG";
const PREFIX: &str = "OUTBOX_";
/// How alike two names must be for one to be a likely slip of the other.
const ALIKE_MIN: f64 = 0.6;

/// Everything that is wrong with the settings.
#[derive(Debug, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct ConfigError {
    /// One line each.
    pub(crate) problems: Vec<String>,
}

impl From<String> for ConfigError {
    fn from(problem: String) -> Self {
        Self { problems: vec![problem] }
    }
}

/// Where a value was set. The environment wins over the file.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Layer {
    Default,
    File,
    Environment,
}

#[derive(Debug)]
struct Found {
    /// What the person who set it called it.
    name: String,
    text: String,
    layer: Layer,
    /// Where the text was read, if it lies in a file of its own.
    path: Option<PathBuf>,
}

/// Settings that were found and are valid.
pub(crate) struct Values {
    known: &'static [&'static About],
    /// By environment name.
    found: BTreeMap<&'static str, Found>,
    /// What was set and is not used, one line each.
    passed_over: Vec<String>,
}

impl Values {
    /// Collects and checks the settings. An empty variable counts as unset, as templates often leave one behind, unless it
    /// could be meant. Settings of adapters that are left out of this build are passed over.
    pub(crate) fn load(
        known: &'static [&'static About],
        left_out: &[&str],
        environment: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let (mut environment, empty): (BTreeMap<String, String>, BTreeMap<String, String>) =
            environment.into_iter().partition(|(_, text)| !text.trim().is_empty());
        let mut problems = unknown_variables(known, left_out, &environment);
        problems.extend(ambiguous(known, &empty));
        let file = match file {
            Some(path) => read_file(known, left_out, path, &mut problems)?,
            None => BTreeMap::new(),
        };
        let unusable = take_unusable(known, &mut environment);
        let mut found = BTreeMap::new();
        for &about in known {
            match find(about, &environment, &file) {
                Ok(Some(value)) if !(about.valid)(value.text.trim()) => problems.push(wrong(about, &value)),
                Ok(Some(value)) => drop(found.insert(about.env, value)),
                Ok(None) => {}
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        let mut values = Self { known, found, passed_over: Vec::new() };
        values.passed_over = unusable.into_iter().map(|(about, text)| values.instead_of(about, &text)).collect();
        Ok(values)
    }

    /// Lists what was set and is not used, and what is used instead.
    pub(crate) fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    fn instead_of(&self, about: &About, text: &str) -> String {
        let used = self.shown(about.env).map_or("it counts as unset".to_owned(), |used| format!("{used} is used"));
        format!("{}: expected {}, got: {}; {used}", about.env, about.expected(), text.trim())
    }

    /// Returns a setting that has no default, if it was set.
    pub(crate) fn optional<T>(&self, setting: &Setting<T>) -> Option<T> {
        self.found.get(setting.about.env).and_then(|found| setting.parse(found.text.trim()))
    }

    /// Returns a setting that has a default.
    pub(crate) fn get<T>(&self, setting: &Setting<T>) -> T {
        self.optional(setting).expect("load checked every value, and this setting has a default")
    }

    /// Returns the file of its own that a setting was read from, if there is one.
    pub(crate) fn file<T>(&self, setting: &Setting<T>) -> Option<PathBuf> {
        self.found.get(setting.about.env).and_then(|found| found.path.clone())
    }

    /// Lists every file that others should not be able to read, with the names that led to them.
    pub(crate) fn secret_files(&self) -> Vec<(String, PathBuf)> {
        let found = self.found.values();
        let read = found.filter_map(|found| Some((found.name.clone(), found.path.clone()?)));
        let names_secret = self.known.iter().filter(|about| about.names_secret);
        let named = names_secret.filter_map(|about| self.found.get(about.env)).map(|found| {
            let path = found.text.trim();
            (found.name.clone(), PathBuf::from(path))
        });
        read.chain(named).collect()
    }

    /// Says where each setting came from, in the order of the reference.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'static About, Option<Layer>)> {
        self.known.iter().map(|about| (*about, self.found.get(about.env).map(|found| found.layer)))
    }

    /// Returns the text of a setting that is no secret, if there is one.
    pub(crate) fn shown(&self, env: &str) -> Option<&str> {
        let about = self.known.iter().find(|about| about.env == env && !about.secret)?;
        self.found.get(about.env).map(|found| found.text.trim())
    }

    /// Writes a setting as whoever set it wrote it; of a secret only its name, of what nobody set that it is so.
    pub(crate) fn written(&self, env: &str) -> String {
        let is_secret = self.known.iter().any(|about| about.env == env && about.secret);
        match self.found.get(env) {
            None => format!("{env} (not set)"),
            Some(found) if is_secret => found.name.clone(),
            Some(found) if found.layer == Layer::Default => {
                format!("{} (by default {})", found.name, found.text.trim())
            }
            Some(found) => format!("{}={}", found.name, found.text.trim()),
        }
    }

    /// Says where a setting was set, if it was.
    pub(crate) fn layer<T>(&self, setting: &Setting<T>) -> Option<Layer> {
        self.found.get(setting.about.env).map(|found| found.layer)
    }
}

/// Shows no value: a secret may stand in the wrong variable.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.found.keys()).finish()
    }
}

/// Takes out of the environment what the earlier relay would not have used either.
fn take_unusable(
    known: &[&'static About],
    environment: &mut BTreeMap<String, String>,
) -> Vec<(&'static About, String)> {
    let is_unusable = |about: &&About, text: &String| about.earlier && !about.secret && !(about.valid)(text.trim());
    let unusable: Vec<&'static About> = known
        .iter()
        .copied()
        .filter(|about| environment.get(about.env).is_some_and(|text| is_unusable(about, text)))
        .collect();
    unusable.into_iter().filter_map(|about| Some((about, environment.remove(about.env)?))).collect()
}

fn find(
    about: &About,
    environment: &BTreeMap<String, String>,
    file: &BTreeMap<String, String>,
) -> Result<Option<Found>, String> {
    let layers = [
        (Layer::Environment, environment, about.env.to_owned(), about.file_env()),
        (Layer::File, file, about.key.to_owned(), about.file_key()),
    ];
    for (layer, values, name, file_name) in layers {
        let path = file_name.and_then(|name| values.get(&name).map(|path| (name, path)));
        match (values.get(&name), path) {
            (Some(_), Some((file_name, _))) => {
                return Err(format!("{name} and {file_name}: expected only one of them"));
            }
            (Some(text), None) => return Ok(Some(Found { name, text: text.clone(), layer, path: None })),
            (None, Some((name, path))) => return read_secret(path, name, layer).map(Some),
            (None, None) => {}
        }
    }
    let default =
        |text: &str| Found { name: about.env.to_owned(), text: text.to_owned(), layer: Layer::Default, path: None };
    Ok(about.default.map(default))
}

/// Reads a secret from its file. The path is not shown: it could be the secret itself, in the wrong variable.
fn read_secret(path: &str, name: String, layer: Layer) -> Result<Found, String> {
    match std::fs::read_to_string(path.trim()) {
        Ok(text) => Ok(Found { name, text, layer, path: Some(path.trim().into()) }),
        Err(error) => Err(format!("{name}: expected the path of a file with the value: {error}")),
    }
}

fn wrong(about: &About, found: &Found) -> String {
    let expected = about.expected();
    if about.secret {
        format!("{}: expected {expected} (the value is not shown)", found.name)
    } else {
        format!("{}: expected {expected}, got: {}", found.name, found.text.trim())
    }
}

fn unknown_variables(known: &[&About], left_out: &[&str], environment: &BTreeMap<String, String>) -> Vec<String> {
    let known: Vec<String> =
        known.iter().flat_map(|about| [Some(about.env.to_owned()), about.file_env()]).flatten().collect();
    let ours = |name: &str| name.starts_with(PREFIX) && name != CONFIG_ENV && !is_service_link(name, environment);
    let passed_over = |name: &str| {
        let rest = name.trim_start_matches(PREFIX).to_ascii_lowercase();
        left_out.iter().any(|adapter| rest.strip_prefix(adapter).is_some_and(|rest| rest.starts_with('_')))
    };
    let unknowns = environment.keys().filter(|name| ours(name) && !known.contains(name) && !passed_over(name));
    unknowns.map(|name| unknown(name, &known)).collect()
}

fn ambiguous(known: &[&About], empty: &BTreeMap<String, String>) -> Vec<String> {
    let words = known.iter().filter_map(|about| Some((about.env, about.no_value?)));
    let ambiguous = words.filter(|(env, _)| empty.contains_key(*env));
    ambiguous
        .map(|(env, word)| format!("{env}: expected {word} or a value, got an empty one: unset it for the default"))
        .collect()
}

/// Kubernetes describes every service of a namespace to every pod: a service `outbox-relay` appears as
/// `OUTBOX_RELAY_SERVICE_HOST`, `OUTBOX_RELAY_PORT_8085_TCP` and more. Those are not settings.
fn is_service_link(name: &str, environment: &BTreeMap<String, String>) -> bool {
    let services = environment.keys().filter_map(|name| name.strip_suffix("_SERVICE_HOST"));
    services
        .filter_map(|service| name.strip_prefix(service))
        .any(|rest| rest.starts_with("_SERVICE_") || rest == "_PORT" || rest.starts_with("_PORT_"))
}

fn unknown(name: &str, known: &[String]) -> String {
    let alike = |candidate: &str| {
        let candidate = match candidate.split_once('.') {
            // A key that stands before the first section is one whose section was forgotten.
            Some((_, key)) if !name.contains('.') => key,
            _ => candidate.trim_start_matches(PREFIX),
        };
        strsim::normalized_damerau_levenshtein(name.trim_start_matches(PREFIX), candidate)
    };
    let nearest = known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    match nearest.filter(|nearest| alike(nearest) >= ALIKE_MIN) {
        Some(nearest) => format!("unknown setting {name}, did you mean {nearest}?"),
        None => format!("unknown setting {name}"),
    }
}

/// Reads a TOML file as `section.name` to text.
fn read_file(
    known: &[&About],
    left_out: &[&str],
    path: &Path,
    problems: &mut Vec<String>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        // The error's own display quotes the line, which may hold a password.
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        format!("{shown} line {line}: {}", error.message())
    })?;
    let known: Vec<String> =
        known.iter().flat_map(|about| [Some(about.key.to_owned()), about.file_key()]).flatten().collect();
    let mut values = BTreeMap::new();
    for (section, value) in table {
        if left_out.contains(&section.as_str()) {
            continue;
        }
        let Value::Table(entries) = value else {
            problems.push(unknown(&section, &known));
            continue;
        };
        for (name, value) in entries {
            let key = format!("{section}.{name}");
            match as_text(&value) {
                _ if !known.contains(&key) => problems.push(unknown(&key, &known)),
                Some(text) => drop(values.insert(key, text)),
                None => problems.push(format!("{key}: expected one value, got: {}", value.type_str())),
            }
        }
    }
    Ok(values)
}

/// Writes a value as its variable would hold it; a list of strings is one text with commas.
fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        Value::Array(items) => items.iter().map(Value::as_str).collect::<Option<Vec<_>>>().map(|items| items.join(",")),
        Value::Datetime(_) | Value::Table(_) => None,
    }
}
