//! The settings as a person reads them, after `--help`.

use std::fmt::Write;

use super::ALL;
use crate::settings::About;

/// Renders the settings for the end of a command's help.
pub(crate) fn help() -> String {
    let mut text = "Settings (environment, or a TOML file; docs/configuration.md has the details):".to_owned();
    for (section, abouts) in sections() {
        let _ = write!(text, "\n\n[{section}]");
        for about in abouts {
            let default = about.default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
            let _ = write!(text, "\n  {}{default}\n      {}", about.env, about.help());
        }
    }
    text
}

/// Groups the settings by section, in the order of the table.
pub(super) fn sections() -> Vec<(&'static str, Vec<&'static About>)> {
    let mut sections: Vec<(&str, Vec<&About>)> = Vec::new();
    for about in ALL.iter().copied() {
        match sections.iter_mut().find(|(section, _)| *section == about.section()) {
            Some((_, abouts)) => abouts.push(about),
            None => sections.push((about.section(), vec![about])),
        }
    }
    sections
}
