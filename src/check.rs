//! check
use crate::config::Loaded;
use std::process::ExitCode;
/// x
pub async fn run(_loaded: &Loaded, _json: bool) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
