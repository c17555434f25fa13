//! trust
use crate::config::Config;
/// x
pub async fn run(_config: &Config, _accept: Option<(String, Vec<String>)>) -> anyhow::Result<()> {
    Ok(())
}
