//! `outbox-relay check-config`: what each setting came to, and where from. Nothing is connected to.

use clap::Args;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{ContentArrangement, Table};
use serde_json::{Value, json};

use crate::config::{CameTo, Config};
use crate::output::{one_line, print};
use crate::report::CommandError;

#[derive(Debug, Args)]
pub(crate) struct CheckConfigArgs {
    /// Prints JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Shows only what somebody set
    #[arg(long)]
    set: bool,
}

/// Runs `check-config`. What is wrong with a setting by itself was said when they were read.
pub(crate) fn check_config(config: &Config, args: &CheckConfigArgs) -> Result<(), CommandError> {
    config.check()?;
    let settings = config.came_to().into_iter().filter(|setting| !args.set || setting.is_set());
    let settings: Vec<CameTo> = settings.collect();
    let warnings: Vec<String> = config.reinterpreted().iter().cloned().chain(config.contradictions()).collect();
    if args.json {
        let settings: Vec<Value> = settings.iter().map(as_json).collect();
        return print(&format!("{:#}\n", json!({ "settings": settings, "warnings": warnings })));
    }
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["Setting", "Value", "From"]);
    for setting in &settings {
        let value = one_line(setting.value.as_deref().unwrap_or("-"));
        table.add_row([setting.name, &value, setting.from]);
    }
    let warnings: String = warnings.iter().map(|warning| format!("Warning: {}\n", one_line(warning))).collect();
    print(&format!("{table}\n{warnings}"))
}

fn as_json(setting: &CameTo) -> Value {
    json!({ "name": setting.name, "value": setting.value, "from": setting.from })
}
