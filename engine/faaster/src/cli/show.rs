//! d
use super::*;
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArguments {
    name: String,
    #[command(flatten)]
    target: Target,
}
pub(crate) fn remove(_a: RemoveArguments, _f: Format) -> Result<Outcome, CliError> {
    Ok(Outcome::Failed)
}
pub(crate) fn functions(_a: Target, _f: Format) -> Result<Outcome, CliError> {
    Ok(Outcome::Failed)
}
pub(crate) fn instances(_a: Target, _f: Format) -> Result<Outcome, CliError> {
    Ok(Outcome::Failed)
}
pub(crate) fn resource(_a: Target, _f: Format) -> Result<Outcome, CliError> {
    Ok(Outcome::Failed)
}
pub(crate) fn runtimes(_a: Target, _f: Format) -> Result<Outcome, CliError> {
    Ok(Outcome::Failed)
}
