//! d
use super::*;
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArguments {
    name: String,
    #[arg(short)]
    f: bool,
    #[command(flatten)]
    target: Target,
}
pub(crate) fn run(_a: LogsArguments, _f: Format) -> Result<Outcome, CliError> {
    Ok(Outcome::Failed)
}
