//! `outbox-relay health`: whether the relay of this container is alive, for images without a shell.

use clap::Args;

use super::running::here;
use crate::config::Config;
use crate::http_client::http_get;
use crate::output::{one_line, print};
use crate::report::CommandError;

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Asks whether it can do its work (/readyz), not only whether it is alive (/healthz)
    #[arg(long)]
    ready: bool,
}

/// Runs `health`.
pub(crate) async fn health(config: Config, args: HealthArgs) -> Result<(), CommandError> {
    let Some(uri) = here(config.http) else {
        return Err(CommandError::usage(
            "expected HTTP_PORT to be a port: 0 takes any free one, which nobody else knows",
        ));
    };
    let path = if args.ready { "/readyz" } else { "/healthz" };
    match http_get("the relay", &uri, path).await {
        Ok(said) => print(&format!("{}\n", one_line(said.trim_end()))),
        Err(error) => Err(CommandError::unhealthy(error)),
    }
}
