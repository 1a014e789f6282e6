//! Which module may know which.

use std::path::Path;

use crate::files::{code_lines, root};

/// Which files must not name what, and why.
struct Boundary {
    /// Path prefixes, from the root of the repository.
    inside: &'static [&'static str],
    /// Prefixes below `inside` for which the rule does not hold.
    except: &'static [&'static str],
    must_not_name: &'static [&'static str],
    because: &'static str,
}

const LIBRARY: &str = "crates/gamemesh-outbox/src/";

const BOUNDARIES: [Boundary; 9] = [
    Boundary {
        inside: &[
            "crates/gamemesh-outbox/src/carrier.rs",
            "crates/gamemesh-outbox/src/event.rs",
            "crates/gamemesh-outbox/src/producer",
            "crates/gamemesh-outbox/src/validate.rs",
        ],
        except: &[],
        must_not_name: &["crate::bus", "crate::relay", "crate::telemetry"],
        because: "the producer side knows no relay and no bus",
    },
    Boundary {
        inside: &["crates/gamemesh-outbox/src/relay/"],
        except: &[],
        must_not_name: &[
            "bus::memory",
            "bus::nats",
            "bus::redis",
            "bus::stdout",
            "store::memory",
            "store::postgres",
            "store::sqlite",
        ],
        because: "the relay sees `Store` and `BusPublisher`, never an adapter",
    },
    Boundary {
        inside: &["crates/gamemesh-outbox/src/bus/"],
        except: &[],
        must_not_name: &["crate::relay", "crate::telemetry", "crate::producer"],
        because: "a bus adapter classifies and decides nothing",
    },
    Boundary {
        inside: &["crates/gamemesh-outbox/src/store/"],
        except: &[],
        must_not_name: &["crate::relay", "crate::telemetry", "crate::bus"],
        because: "a store knows no relay and no bus",
    },
    Boundary {
        inside: &["crates/outbox-testkit/src/checker/"],
        except: &[],
        must_not_name: &["crate::servers", "history::collect", "std::fs", "tokio", "wall_clock", "::now("],
        because: "a verdict depends on the records alone",
    },
    Boundary {
        inside: &["crates/outbox-testkit/src/history/"],
        except: &[],
        must_not_name: &["crate::checker"],
        because: "records are taken without regard to what they will show",
    },
    Boundary {
        inside: &["crates/outbox-testkit/src/simulation/"],
        except: &[],
        must_not_name: &["crate::checker"],
        because: "nothing that happens there knows how it will be judged",
    },
    Boundary {
        inside: &["crates/outbox-testkit/src/simulation/", "crates/outbox-testkit/tests/simulation/bugs/"],
        except: &[],
        must_not_name: &["Timestamp::now", "now_v7", "std::time::Instant", "HashMap", "HashSet"],
        because: "the seed decides everything",
    },
    Boundary {
        inside: &["crates/outbox-relay/src/", "crates/outbox-bench/src/"],
        // The demonstration is embedded by definition: it has nothing to choose. Only PostgreSQL is measured.
        except: &[
            "crates/outbox-bench/src/stage.rs",
            "crates/outbox-relay/src/adapters/",
            "crates/outbox-relay/src/commands/demo",
        ],
        must_not_name: &["MemoryBus", "NatsBus", "PostgresStore", "RedisBus", "SqliteStore", "StdoutBus"],
        because: "an adapter is built in its own file below adapters/",
    },
];

/// Modules from the bottom up: each names only itself and those before it.
struct Layers {
    /// The folder of the modules, from the root of the repository.
    folder: &'static str,
    /// How code below that folder names one of them.
    named_by: &'static [&'static str],
    modules: &'static [&'static str],
}

const LAYERS: [Layers; 4] = [
    Layers {
        folder: LIBRARY,
        named_by: &["crate::"],
        modules: &[
            "crash_point",
            "error_chain",
            "failed_lately",
            "span",
            "renew",
            "diagnosis",
            "troubles",
            "carrier",
            "event",
            "validate",
            "wire",
            "producer",
            "store",
            "bus",
            "telemetry",
            "relay",
        ],
    },
    Layers {
        folder: "crates/outbox-relay/src/",
        named_by: &["crate::"],
        modules: &[
            "settings",
            "log_writer",
            "report",
            "output",
            "signals",
            "http_client",
            "adapters",
            "config",
            "crash_points",
            "otlp",
            "logging",
            "http",
            "commands",
            "cli",
        ],
    },
    Layers {
        folder: "crates/outbox-relay/src/http/",
        named_by: &["crate::http::", "use super::"],
        modules: &["error", "metrics_format", "process", "access", "state", "guard", "api", "page", "routes", "server"],
    },
    Layers {
        folder: "crates/outbox-bench/src/",
        named_by: &["crate::"],
        modules: &[
            "place",
            "args",
            "times",
            "processes",
            "bus",
            "stage",
            "conditions",
            "rows",
            "load",
            "relays",
            "ceiling",
            "meter",
            "drain",
            "latency",
            "insert",
            "report",
        ],
    },
];

/// Finds what a file takes from above its own layer, and modules that have no layer.
pub(crate) fn imports_from_above(path: &Path, text: &str) -> Vec<String> {
    let path = path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned();
    let mut problems = Vec::new();
    for Layers { folder, named_by, modules } in &LAYERS {
        let Some(below) = path.strip_prefix(folder) else { continue };
        let own = below.split('/').next().unwrap_or_default().trim_end_matches(".rs").trim_end_matches("_left_out");
        let top = own == below.trim_end_matches(".rs") && ["lib", "main", "mod"].contains(&own);
        let place = |module: &str| modules.iter().position(|known| *known == module);
        let Some(own_place) = place(own) else {
            problems.extend((!top).then(|| format!("module {own} has no place among the layers of {folder}")));
            continue;
        };
        let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // A module of the same name further down is another one.
        let named_by = named_by.iter().filter(|name| **name != "use super::" || !below.contains('/'));
        for (line, name) in code_lines(text).flat_map(|line| named_by.clone().map(move |name| (line, name))) {
            let above = line.split(name).skip(1).filter_map(|rest| {
                let names =
                    rest.strip_prefix('{').map_or(vec![rest], |group| group.split(',').map(str::trim).collect());
                let modules = names.into_iter().filter_map(|name| name.split(|c| !in_name(c)).next());
                modules.filter_map(place).find(|place| *place > own_place)
            });
            problems.extend(above.map(|_| format!("{own} takes something from above it: `{}`", line.trim())));
        }
    }
    problems
}

pub(crate) fn forbidden_imports(path: &Path, text: &str) -> Vec<String> {
    let path = path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned();
    let mut problems = Vec::new();
    for rule in &BOUNDARIES {
        let below = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
        let applies = below(rule.inside) && !below(rule.except);
        let named = code_lines(text).filter(|line| rule.must_not_name.iter().any(|name| line.contains(name)));
        problems.extend(named.filter(|_| applies).map(|line| format!("{}: `{}`", rule.because, line.trim())));
    }
    if path.starts_with(LIBRARY) {
        let outside = ["std::env::", "std::process::", "tokio::signal"];
        let named = code_lines(text).filter(|line| outside.iter().any(|name| line.contains(name)));
        let because = "the library reads no environment and knows no process";
        problems.extend(named.map(|line| format!("{because}: `{}`", line.trim())));
    }
    problems
}
