//! Settings that nobody thought of; `scripts/fuzz` runs these for as long as one likes.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::{ALL, Config};
use crate::settings::{About, values};

/// What no error may show.
const CANARY: &str = "canary-5eb1";

fn any_setting() -> impl Strategy<Value = &'static About> {
    select(ALL.as_slice())
}

fn load(environment: &[(&str, &str)]) -> Result<Config, String> {
    let environment = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Config::load(environment, None).map_err(|error| error.to_string())
}

fn load_file(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(BTreeMap::new(), Some(&path)).map_err(|error| error.to_string())
}

/// Text that is nearly the value of some setting.
fn nearly_a_value() -> impl Strategy<Value = String> {
    let defaults: Vec<&str> = ALL.iter().filter_map(|about| about.default).collect();
    prop_oneof![
        select(defaults).prop_map(str::to_owned),
        "[0-9]{1,25}(\\.[0-9]{1,3})?(ns|us|ms|s|m|h|d|KiB|MB|GiB)?",
        "[A-Za-z0-9_.:/=,|@%-]{0,40}",
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn a_duration_is_read_as_it_was_written(hours in 0..10_000_u64, minutes in 0..60_u64, seconds in 0..60_u64, ms in 0..1000_u64) {
        let expected = Duration::from_millis(((hours * 60 + minutes) * 60 + seconds) * 1000 + ms);
        for text in [
            format!("{hours}h{minutes}m{seconds}s{ms}ms"),
            format!("{}ms", expected.as_millis()),
            format!("{}.{ms:03}s", expected.as_secs()),
        ] {
            prop_assert_eq!(values::duration(&text), Some(expected), "{}", text);
        }
    }

    #[test]
    fn a_size_is_read_as_it_was_written(kib in 1..=1_048_576_u64) {
        prop_assert_eq!(values::size(&format!("{kib}KiB")), Some(kib * 1024));
        prop_assert_eq!(values::size(&(kib * 1024).to_string()), Some(kib * 1024));
    }

    #[test]
    fn a_setting_is_taken_or_refused_by_its_name(about in any_setting(), text in nearly_a_value()) {
        let text = text.replace('\0', "");
        match load(&[(about.env, &text)]) {
            // An empty variable counts as unset.
            Ok(_) if text.trim().is_empty() || (about.valid)(text.trim()) => {}
            // Passed over, and named.
            Ok(config) => {
                let told = config.reinterpreted().iter().any(|told| told.starts_with(about.env));
                prop_assert!(about.earlier && told, "{} {text:?}", about.env);
            }
            // Nothing is not what some settings are told for "none".
            Err(problem) if text.trim().is_empty() => {
                prop_assert!(problem.contains(about.env) && about.no_value.is_some(), "{problem}");
            }
            // By itself it is fine, but not beside another one, which is named as well.
            Err(problem) if (about.valid)(text.trim()) => {
                prop_assert!(problem.contains(about.env) && problem.contains(" and "), "{problem}");
            }
            Err(problem) => {
                prop_assert!(problem.contains(about.env) && problem.contains(&*about.expected()), "{problem}");
            }
        }
    }

    #[test]
    fn no_refusal_and_no_debug_shows_a_secret(
        about in any_setting().prop_filter("secrets", |about| about.secret),
        before in "[a-z0-9:/@ ]{0,12}", after in "[ -~]{0,12}", layer in 0..3,
    ) {
        let text = format!("{before}{CANARY}{after}");
        let file_env = about.file_env().unwrap();
        let shown = match layer {
            0 => load(&[(about.env, &text)]),
            // The value where the path of its file belongs.
            1 => load(&[(&file_env, &text)]),
            _ => load(&[(about.env, &text), (&file_env, &text)]),
        };
        let shown = shown.map_or_else(|problem| problem, |config| format!("{config:?}"));
        prop_assert!(!shown.contains(CANARY), "{shown}");
    }

    #[test]
    fn no_file_however_broken_shows_a_secret(
        about in any_setting().prop_filter("secrets", |about| about.secret),
        noise in "[ -~\n\"'\\[\\]=]{0,12}", at in 0..200_usize, cut in 0..200_usize, other in any_setting(), value in nearly_a_value(),
    ) {
        let key = |about: &About| about.key.split_once('.').unwrap().1.to_owned();
        let mut text = format!("[{}]\n{} = \"{CANARY}\"\n", about.section(), key(about));
        if other.section() != about.section() {
            text.push_str(&format!("[{}]\n{} = {value}\n", other.section(), key(other)));
        }
        let boundary = |at: usize| text.floor_char_boundary(at.min(text.len()));
        let (at, cut) = (boundary(at), boundary(cut));
        let broken = format!("{}{noise}{}", &text[..at.min(cut)], &text[cut.max(at)..]);
        for text in [text.clone(), format!("{}{noise}{}", &text[..at], &text[at..]), broken] {
            // A secret whose own name is gone is no longer known to be one.
            if !text.contains(&format!("{} = \"{CANARY}", key(about))) || !text.contains(&format!("[{}]", about.section())) {
                continue;
            }
            let shown = load_file(&text).map_or_else(|problem| problem, |config| format!("{config:?}"));
            prop_assert!(!shown.contains(CANARY), "{text}\n{shown}");
        }
    }

    #[test]
    fn an_unknown_variable_of_ours_is_named(name in "OUTBOX_[A-Z_]{1,30}") {
        prop_assume!(ALL.iter().all(|about| about.env != name && about.file_env().as_deref() != Some(&name)));
        prop_assume!(name != crate::settings::load::CONFIG_ENV);
        let problem = load(&[(&name, CANARY)]).expect_err("nobody reads it");
        prop_assert!(problem.contains(&name) && !problem.contains(CANARY), "{problem}");
    }
}
