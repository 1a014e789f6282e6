//! What a setting is, how its text becomes a value, and where values are found.
//!
//! A setting is declared once, by [`settings!`]; the declaration drives reading, error texts, help and
//! `docs/configuration.md`.

pub(crate) mod contradictions;
pub(crate) mod load;
pub(crate) mod types;
pub(crate) mod values;

use std::borrow::Cow;

/// One setting whose values are of type `T`.
pub(crate) struct Setting<T: 'static> {
    pub about: About,
    pub parse: fn(&str) -> Option<T>,
}

impl<T> Setting<T> {
    /// Reads a value, if the text is one.
    pub(crate) fn parse(&self, text: &str) -> Option<T> {
        (self.parse)(text)
    }
}

/// What a person needs to know about a setting.
#[derive(Debug)]
pub(crate) struct About {
    /// The environment variable.
    pub env: &'static str,
    /// The key in a TOML file: section and name.
    pub key: &'static str,
    /// The default, as one would write it; `None` where there is none.
    pub default: Option<&'static str>,
    /// Completes "expected ...".
    pub expected: &'static str,
    /// One or two sentences.
    pub help: &'static str,
    /// Makes both of these, where they depend on which adapters there are.
    pub made: Option<fn() -> Made>,
    /// Whether a value is never shown. Such a setting can also be read from the file that `<env>_FILE` names.
    pub secret: bool,
    /// Whether the file that a value names holds a secret.
    pub names_secret: bool,
    /// The word for no value at all, where an empty variable might be meant to say that, or only be left behind.
    pub no_value: Option<&'static str>,
    /// Whether the earlier relay reads the variable too. As there, a text in the environment that is no value leaves it unset;
    /// here that is told.
    pub earlier: bool,
    /// Whether a text is such a value.
    pub valid: fn(&str) -> bool,
}

/// Texts of [`About`] that depend on something.
pub(crate) struct Made {
    pub expected: String,
    pub help: String,
}

impl About {
    /// Completes "expected ...".
    pub(crate) fn expected(&self) -> Cow<'static, str> {
        self.made.map_or(self.expected.into(), |made| made().expected.into())
    }

    /// Explains the setting in one or two sentences.
    pub(crate) fn help(&self) -> Cow<'static, str> {
        self.made.map_or(self.help.into(), |made| made().help.into())
    }

    /// Returns the variable that names a file with the value, if there is one.
    pub(crate) fn file_env(&self) -> Option<String> {
        self.secret.then(|| format!("{}_FILE", self.env))
    }

    /// Returns the TOML key of the same.
    pub(crate) fn file_key(&self) -> Option<String> {
        self.secret.then(|| format!("{}_file", self.key))
    }

    /// Returns the section of the TOML key.
    pub(crate) fn section(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(section, _)| section)
    }
}

/// Declares settings, and a list of them in the order of the reference.
macro_rules! settings {
    (@made) => { None };
    (@made $made:expr) => { Some($made) };
    (@no_value) => { None };
    (@no_value $word:literal) => { Some($word) };
    (
        $list:ident:
        $($name:ident: $type:ty {
            $($field:ident: $value:expr),*;
            parse: $parse:expr,
            $(no_value: $no_value:literal,)? $(secret: $secret:literal,)? $(names_secret: $names_secret:literal,)?
            $(made: $made:expr,)? $(earlier: $earlier:literal,)?
        })*
    ) => {
        $(pub(crate) static $name: $crate::settings::Setting<$type> = $crate::settings::Setting {
            about: $crate::settings::About {
                $($field: $value,)*
                made: $crate::settings::settings!(@made $($made)?),
                secret: false $(|| $secret)?,
                names_secret: false $(|| $names_secret)?,
                no_value: $crate::settings::settings!(@no_value $($no_value)?),
                earlier: false $(|| $earlier)?,
                valid: |text| $name.parse(text).is_some(),
            },
            parse: $parse,
        };)*
        pub(crate) static $list: &[&$crate::settings::About] = &[$(&$name.about),*];
    };
}
pub(crate) use settings;

pub(crate) const DURATION: &str = "a duration such as 250ms, 1s, 5m or 72h";
pub(crate) const POSITIVE_DURATION: &str = "a duration above 0, such as 250ms, 1s, 5m or 72h";
pub(crate) const SIZE: &str = "a size from 1KiB to 1GiB, such as 512KiB or 4MiB";
pub(crate) const FLAG: &str = "true or false";
pub(crate) const PEM_FILE: &str = "the path of a PEM file";
