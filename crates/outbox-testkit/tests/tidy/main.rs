//! The house rules that a machine can check. Each rule is a function from one file's text to its problems, so that each
//! can be seen to find what it is there for.

mod documents;
mod files;
mod layers;
mod rules;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::documents::{broken_links, first_column, missing_paths, tests_named};
use self::files::{check, files, is, is_test_code, read, root, rust_files, tests_only, without_tests};
use self::layers::{forbidden_imports, imports_from_above};
use self::rules::{
    MARKERS, PROPAGATION, SET_DEFAULT, SLEEP, SLOW_DATABASE, chances, easily_deaf, embedded_from_outside,
    left_over_markers, names, planted, second_paths_of_context, sleeps, unsafe_allowed, without_lints,
};

const LINES_MAX: usize = 600;

#[test]
fn files_are_short_enough_to_read() {
    check(files(&["go", "rs"]), |_, text| {
        let lines = without_tests(text).lines().count();
        (lines > LINES_MAX).then(|| format!("{lines} lines without tests, expected at most {LINES_MAX}")).into_iter()
    });
}

#[test]
fn nothing_is_left_for_later() {
    check(files(&["go", "md", "rs", "sh", "sql", "toml", "yaml", "yml"]), |_, text| {
        left_over_markers(text).into_iter()
    });
    assert_eq!(left_over_markers(&format!("fn main() {{}}\n// {}: later", MARKERS[0])).len(), 1);
}

#[test]
fn tests_wait_for_signals_and_not_for_time() {
    check(rust_files(), |path, text| sleeps(if is_test_code(path) { text } else { tests_only(text) }).into_iter());
    assert_eq!(sleeps(&format!("#[tokio::test]\nasync fn a() {{ {SLEEP}1) }}")).len(), 1);
    assert_eq!(sleeps(&format!("#[tokio::test(start_paused = true)]\nasync fn a() {{ {SLEEP}1) }}")).len(), 0);
    assert_eq!(sleeps(&format!("BEGIN {SLOW_DATABASE}1) END")).len(), 0);
}

#[test]
fn no_test_takes_the_spans_of_another() {
    check(rust_files(), |path, text| easily_deaf(path, text).into_iter());
    assert_eq!(easily_deaf(Path::new("tests/a.rs"), &format!("let _a = {SET_DEFAULT}b);")).len(), 1);
}

#[test]
fn trace_context_has_one_path() {
    check(rust_files(), |path, text| second_paths_of_context(path, text).into_iter());
    let carrier = Path::new("crates/gamemesh-outbox/src/carrier.rs");
    for name in PROPAGATION {
        let code = |function: &str| format!("use a::{name};\n\nfn {function}() {{\n    {name}\n}}\n");
        assert_eq!(second_paths_of_context(Path::new("src/a.rs"), &code("inject_carrier")).len(), 2);
        assert_eq!(second_paths_of_context(carrier, &code("trace_id")).len(), 1);
        let its_own = format!("static A: {name} =\n    {name};\n\npub fn inject_carrier() {{\n    {name}\n}}\n");
        assert_eq!(second_paths_of_context(carrier, &its_own), [""; 0]);
        assert_eq!(second_paths_of_context(carrier, &format!("{its_own}fn other() {{ {name} }}\n")).len(), 1);
    }
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
    assert_eq!(imports_from_above(access, "use super::{error, state};").len(), 1);
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
fn an_adapter_is_known_where_the_guide_says_and_nowhere_else() {
    let guide = read(&root().join("docs/adding-an-adapter.md"));
    let listed = first_column(&guide, "## Files of a bus");
    assert!(listed.len() > 5, "{listed:?}");
    let crates = ["crates/gamemesh-outbox/", "crates/outbox-bench/", "crates/outbox-relay/", "crates/outbox-testkit/"];
    let shipped = |path: &str| {
        path == "Cargo.toml" || crates.iter().any(|name| path.starts_with(name)) && !path.contains("/tests/")
    };
    let named: Vec<String> = files(&["rs", "sql", "toml"])
        .into_iter()
        .filter(|path| names(&read(path), "redis"))
        .map(|path| path.strip_prefix(root()).unwrap_or(&path).to_string_lossy().into_owned())
        .filter(|path| shipped(path))
        .collect();
    let is_of = |path: &str, place: &str| path == place || place.ends_with('/') && path.starts_with(place);
    let elsewhere: Vec<&String> = named.iter().filter(|path| !listed.iter().any(|place| is_of(path, place))).collect();
    assert!(elsewhere.is_empty(), "named in places that the guide does not list: {elsewhere:?}");
    let idle: Vec<&String> = listed.iter().filter(|place| !named.iter().any(|path| is_of(path, place))).collect();
    assert!(idle.is_empty(), "listed by the guide and not needed: {idle:?}");
    assert!(
        names("use redis::Client;", "redis") && names("EVENT_BUS: Redis", "redis") && !names("prediscount", "redis")
    );
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
