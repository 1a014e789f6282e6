//! The house rules that a machine can check. Each rule is a function from one file's text to its problems, so that each
//! can be seen to find what it is there for.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

const LINES_MAX: usize = 600;

#[test]
fn files_are_short_enough_to_read() {
    check(rust_files(), |_, text| {
        let lines = without_tests(text).lines().count();
        (lines > LINES_MAX).then(|| format!("{lines} lines without tests, expected at most {LINES_MAX}")).into_iter()
    });
}

#[test]
fn nothing_is_left_for_later() {
    check(files(&["md", "rs", "sh", "sql", "toml", "yaml", "yml"]), |_, text| left_over_markers(text).into_iter());
    assert_eq!(left_over_markers(&format!("fn main() {{}}\n// {}: later", MARKERS[0])).len(), 1);
}

#[test]
fn tests_wait_for_signals_and_not_for_time() {
    check(rust_files(), |path, text| sleeps(if is_test_code(path) { text } else { tests_only(text) }).into_iter());
    assert_eq!(sleeps(&format!("#[tokio::test]\nasync fn a() {{ {SLEEP}1) }}")).len(), 1);
    assert_eq!(sleeps(&format!("#[tokio::test(start_paused = true)]\nasync fn a() {{ {SLEEP}1) }}")).len(), 0);
}

#[test]
fn imports_point_one_way() {
    check(rust_files(), |path, text| forbidden_imports(path, text).into_iter());

    let sees_bus = forbidden_imports(Path::new("crates/gamemesh-outbox/src/producer.rs"), "use crate::bus::Ack;");
    assert_eq!(sees_bus.len(), 1, "{sees_bus:?}");
    let chooses = forbidden_imports(Path::new("crates/outbox-relay/src/main.rs"), "let bus = NatsBus::connect();");
    assert_eq!(chooses.len(), 1, "{chooses:?}");
}

#[test]
fn a_file_imports_only_what_stands_below_it() {
    check(rust_files(), |path, text| imports_from_above(path, text).into_iter());

    let config = Path::new("crates/outbox-relay/src/config/mod.rs");
    assert_eq!(imports_from_above(config, "use crate::commands::run;\nuse crate::settings::About;").len(), 1);
    let access = Path::new("crates/outbox-relay/src/http/access.rs");
    assert_eq!(imports_from_above(access, "use super::state::AppState;\nuse super::error::ApiError;").len(), 1);
    let stray = Path::new("crates/outbox-relay/src/stray.rs");
    assert_eq!(imports_from_above(stray, "").len(), 1);
}

#[test]
fn the_library_depends_on_no_terminal_and_no_http() {
    let manifest = read(&root().join("crates/gamemesh-outbox/Cargo.toml"));
    for unwanted in ["anyhow", "axum", "clap", "comfy-table", "hyper", "indicatif", "toml"] {
        let named = |line: &str| line.split(['.', ' ', '=']).next() == Some(unwanted);
        assert!(!manifest.lines().any(named), "gamemesh-outbox depends on {unwanted}");
    }
}

#[test]
fn every_crate_forbids_unsafe_code() {
    let workspace = read(&root().join("Cargo.toml"));
    assert!(workspace.contains("[workspace.lints.rust]\nunsafe_code = \"forbid\"\n"), "{workspace}");
    let manifests = files(&["toml"]).into_iter().filter(|path| path.ends_with("Cargo.toml"));
    check(manifests.collect(), |_, text| without_lints(text).into_iter());
    assert!(without_lints("[package]\nname = \"a\"\n").is_some());
    check(rust_files(), |_, text| unsafe_allowed(text).into_iter());
    assert_eq!(unsafe_allowed(concat!("#![allow(unsafe", "_code)]")).len(), 1);
}

#[test]
fn tests_named_in_the_threat_model_exist() {
    let tests: String = rust_files().iter().map(|path| read(path)).collect();
    let page = read(&root().join("docs/threat-model.md"));
    let named = tests_named(&page);
    assert!(named.len() > 10, "{named:?}");
    let missing: Vec<&str> = named.into_iter().filter(|name| !tests.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    assert_eq!(tests_named("`a_test_that_is_named` and `OUTBOX_WORKERS`"), ["a_test_that_is_named"]);
}

#[test]
fn a_crate_embeds_only_files_that_are_packaged_with_it() {
    check(rust_files(), |path, text| embedded_from_outside(path, text).into_iter());
    let path = Path::new("crates/gamemesh-outbox/src/store/sql.rs");
    assert_eq!(embedded_from_outside(path, "include_str!(\"../../../../migrations/1.sql\")").len(), 1);
    assert_eq!(embedded_from_outside(path, "include_str!(\"../../migrations/1.sql\")").len(), 0);
}

#[test]
fn the_relay_leaves_no_choice_to_chance() {
    let relay = root().join("crates/gamemesh-outbox/src/relay");
    check(rust_files().into_iter().filter(|path| path.starts_with(&relay)).collect(), |_, text| {
        chances(text).into_iter()
    });
    assert_eq!(chances("tokio::select! {\n () = a => {} }; select! { biased; () = a => {} }").len(), 1);
}

#[test]
fn only_tests_can_plant_bugs() {
    check(files(&["rs", "toml"]), |path, text| planted(path, text).into_iter());
    let relay = Path::new("crates/gamemesh-outbox/src/relay/mod.rs");
    assert_eq!(planted(relay, "if planted!(ClaimAfterStop) {").len(), 1);
    assert_eq!(planted(Path::new("crates/outbox-relay/Cargo.toml"), "default = [\"seeded-bugs\"]").len(), 1);
    assert_eq!(planted(relay, "/// Asks outbox_testkit::simulation::NoBug whether it is there.").len(), 1);
    assert_eq!(planted(Path::new("crates/outbox-testkit/src/simulation/bug.rs"), "a planted bug").len(), 0);
}

#[test]
fn every_migration_goes_up_and_down() {
    let mut steps: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for path in files(&["sql"]).into_iter().filter(|path| path.components().any(|part| is(part, "migrations"))) {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let (step, direction) = name.trim_end_matches(".sql").rsplit_once('.').unwrap_or((name.as_str(), "none"));
        let number = step.split('_').next().unwrap_or_default();
        assert!(number.len() == 4 && number.parse::<u16>().is_ok(), "{name}: expected NNNN_name.{{up,down}}.sql");
        steps.entry(path.with_file_name(step)).or_default().push(direction.to_owned());
    }
    for (step, mut directions) in steps {
        directions.sort();
        assert_eq!(directions, ["down", "up"], "{}", step.display());
    }
}

#[test]
fn no_test_file_is_forgotten() {
    let folders = rust_files().into_iter().filter(|path| path.ends_with("tests/main.rs"));
    for main in folders {
        let declared = read(&main);
        for entry in std::fs::read_dir(main.with_file_name("")).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let module = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let is_module = path.extension().is_some_and(|extension| extension == "rs") || path.join("mod.rs").exists();
            let on_its_own = ["main", "tidy"].contains(&module.as_str());
            let forgotten = is_module && !on_its_own && !declared.contains(&format!("mod {module};"));
            assert!(!forgotten, "{} is not declared in {}", path.display(), main.display());
        }
    }
}

#[test]
fn links_between_documents_resolve() {
    check(files(&["md"]), |path, text| broken_links(path, text).into_iter());
    let broken = broken_links(&root().join("README.md"), "[a](no/such/file.md) [b](#no-such-heading) [c](https://d.e)");
    assert_eq!(broken.len(), 2, "{broken:?}");
}

#[test]
fn paths_named_in_documents_exist() {
    check(files(&["md"]), |_, text| missing_paths(text).into_iter());
    assert_eq!(missing_paths("run `scripts/no-such-script`, then `cargo test`").len(), 1);
}

// --- Rules -----------------------------------------------------------------------------------------------------------

const SLEEP: &str = concat!("sle", "ep(");

/// Written in two parts, as above, so that this file does not find itself.
const MARKERS: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
];

/// Finds what knows of bugs that somebody plants: nothing does, but the test kit and tests.
fn planted(path: &Path, text: &str) -> Vec<String> {
    let path = path.strip_prefix(root()).unwrap_or(path);
    if is_test_code(path) || !path.starts_with("crates") || path.starts_with("crates/outbox-testkit") {
        return Vec::new();
    }
    let is_named = |line: &&str| ["planted", "seeded", "simulation::"].iter().any(|name| line.contains(name));
    text.lines().filter(is_named).map(|line| format!("knows of planted bugs: `{}`", line.trim())).collect()
}

/// Finds sleeps, except on a paused clock: there they move it and take no time.
fn sleeps(text: &str) -> Vec<String> {
    let mut paused = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.contains("#[tokio::test") || line.contains("#[test]") {
            paused = line.contains("start_paused = true");
        }
        if line.contains(SLEEP) && !paused {
            found.push(format!("a test that sleeps: `{}`", line.trim()));
        }
    }
    found
}

/// Finds a `select!` that takes the branches in any order: no run could be repeated.
fn chances(text: &str) -> Vec<String> {
    let code: String = code_lines(text).collect::<Vec<_>>().join(" ");
    let bodies = code.split("select! {").skip(1).map(str::trim_start);
    bodies.filter(|body| !body.starts_with("biased;")).map(|body| format!("a select! by chance: {body:.40}")).collect()
}

fn left_over_markers(text: &str) -> Vec<String> {
    let marked = |line: &&str| MARKERS.iter().any(|marker| line.contains(marker));
    text.lines().filter(marked).map(|line| format!("left for later: `{}`", line.trim())).collect()
}

/// Finds a crate to which the workspace's lints do not apply.
fn without_lints(manifest: &str) -> Option<String> {
    let is_crate = manifest.contains("[package]");
    (is_crate && !manifest.contains("[lints]\nworkspace = true\n")).then(|| "no [lints] workspace = true".to_owned())
}

fn unsafe_allowed(text: &str) -> Vec<String> {
    let lint = concat!("unsafe", "_code)");
    let named = text.lines().filter(|line| line.contains("allow(") && line.contains(lint));
    named.map(|line| format!("unsafe code: `{}`", line.trim())).collect()
}

/// Lists what looks like the name of a test in a document: many words in lower case, in backquotes.
fn tests_named(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_name = |word: &&str| {
        word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    quoted.filter(is_name).collect()
}

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
            "renew",
            "diagnosis",
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
        modules: &["error", "access", "state", "guard", "api", "page", "routes", "server"],
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
fn imports_from_above(path: &Path, text: &str) -> Vec<String> {
    let path = path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned();
    let mut problems = Vec::new();
    for Layers { folder, named_by, modules } in &LAYERS {
        let Some(below) = path.strip_prefix(folder) else { continue };
        let own = below.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        let top = own == below.trim_end_matches(".rs") && ["lib", "main", "mod"].contains(&own);
        let place = |module: &str| modules.iter().position(|known| *known == module);
        let Some(own_place) = place(own) else {
            problems.extend((!top).then(|| format!("module {own} has no place among the layers of {folder}")));
            continue;
        };
        // A module of the same name further down is another one.
        let named_by = named_by.iter().filter(|name| **name != "use super::" || !below.contains('/'));
        for (line, name) in code_lines(text).flat_map(|line| named_by.clone().map(move |name| (line, name))) {
            let above = line.split(name).skip(1).filter_map(|rest| {
                let module = rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next()?;
                place(module).filter(|place| *place > own_place)
            });
            problems.extend(above.map(|_| format!("{own} takes something from above it: `{}`", line.trim())));
        }
    }
    problems
}

/// Finds what a crate's own code reads at build time from above its folder: `cargo package` leaves that behind.
fn embedded_from_outside(path: &Path, text: &str) -> Vec<String> {
    let parts: Vec<&str> = path.strip_prefix(root()).unwrap_or(path).iter().filter_map(|part| part.to_str()).collect();
    // Examples are not published.
    let ["crates", _, "src", below @ ..] = parts.as_slice() else { return Vec::new() };
    let reads = text.lines().filter(|line| ["include_str!(", "include_bytes!("].iter().any(|read| line.contains(read)));
    let outside = reads.filter(|line| line.matches("../").count() > below.len());
    outside.map(|line| format!("outside of the crate: {}", line.trim())).collect()
}

fn forbidden_imports(path: &Path, text: &str) -> Vec<String> {
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

fn broken_links(path: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for target in outside_code_blocks(text).flat_map(link_targets) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
        let folder = path.parent().expect("a document lies in a folder");
        let document = if file.is_empty() { path.to_path_buf() } else { folder.join(file) };
        if !document.exists() {
            problems.push(format!("link to {target}: no such file"));
        } else if let Some(anchor) = anchor
            && !headings(&read(&document)).iter().any(|heading| heading == anchor)
        {
            problems.push(format!("link to {target}: no such heading"));
        }
    }
    problems
}

fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next())
}

/// Lists the anchors of a document's headings, as code hosts make them.
fn headings(text: &str) -> Vec<String> {
    let titles = outside_code_blocks(text).filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let kept = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    titles.map(anchor).collect()
}

/// Finds what stands in backquotes, begins with a folder of the repository, and does not exist.
fn missing_paths(text: &str) -> Vec<String> {
    let quoted = outside_code_blocks(text).flat_map(|line| line.split('`').skip(1).step_by(2));
    let words = quoted.filter_map(|code| code.split_whitespace().next());
    let paths = words.filter(|word| {
        let first = word.split('/').next().unwrap_or_default();
        word.contains('/') && !first.is_empty() && !word.contains(['*', '<', '{']) && root().join(first).is_dir()
    });
    paths.filter(|path| !root().join(path).exists()).map(|path| format!("`{path}` does not exist")).collect()
}

// --- Text ------------------------------------------------------------------------------------------------------------

/// Says where a file's tests begin: the library keeps them at its end.
fn tests_begin(text: &str) -> usize {
    text.find("\n#[cfg(test)]\nmod tests").unwrap_or(text.len())
}

fn without_tests(text: &str) -> &str {
    &text[..tests_begin(text)]
}

fn tests_only(text: &str) -> &str {
    &text[tests_begin(text)..]
}

/// Lists the lines that are neither tests nor comments.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    without_tests(text).lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn outside_code_blocks(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .scan(false, |inside, line| {
            let fence = line.trim_start().starts_with("```");
            *inside ^= fence;
            Some((*inside || fence, line))
        })
        .filter_map(|(hidden, line)| (!hidden).then_some(line))
}

fn is_test_code(path: &Path) -> bool {
    path.components().any(|part| is(part, "tests"))
}

// --- Files -----------------------------------------------------------------------------------------------------------

fn check<P: Iterator<Item = String>>(paths: Vec<PathBuf>, rule: impl Fn(&Path, &str) -> P) {
    assert!(!paths.is_empty(), "nothing to check");
    let mut problems = Vec::new();
    for path in paths {
        let text = read(&path);
        let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        problems.extend(rule(&path, &text).map(|problem| format!("{shown}: {problem}")));
    }
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn rust_files() -> Vec<PathBuf> {
    files(&["rs"])
}

/// Lists the repository's own files with one of these extensions, in one fixed order.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let hidden_or_built = path.file_name().is_some_and(|name| name == "target" || name == ".git");
            if path.is_dir() && !hidden_or_built {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is(part: Component<'_>, name: &str) -> bool {
    part.as_os_str() == name
}
