//! The configured sources, made from their section.

use std::collections::BTreeMap;

use anyhow::Context as _;
use reqwest::Client;

use super::credential::layout::{Keys, Layout};
use super::credential::{Login, Place, directory, refresh, secret};
use super::source::{Adapter, anthropic, command, push};
use super::wire;
use crate::config::{self, Account, UsageSource};
use crate::store::Store;

/// Makes what is asked from time to time. `secret` opens a Kubernetes Secret; without it, no login may be in one.
///
/// # Errors
/// Where the HTTP client or a program cannot be prepared, or a login is in a Secret that cannot be opened.
pub fn adapters(
    usage: &config::Usage,
    store: &Store,
    secret: Option<&dyn Fn(secret::Settings) -> secret::Place>,
) -> anyhow::Result<Vec<Adapter>> {
    let http = wire::client(anthropic::TIMEOUT, usage.ca_file.as_deref())?;
    let mut adapters = Vec::new();
    for account in &usage.accounts {
        match account.source {
            UsageSource::AnthropicOauth => {
                adapters.push(Adapter::Anthropic(endpoint(account, &http, store, place(account, secret)?)?));
            }
            UsageSource::Command => {
                let settings = command::Settings {
                    account: account.name.clone(),
                    argv: account.command.clone(),
                    environment: account.environment.clone().into_iter().collect(),
                    timeout: command::TIMEOUT,
                };
                adapters.push(Adapter::Command(command::Program::new(settings)?));
            }
            UsageSource::Push => {}
        }
    }
    Ok(adapters)
}

/// Makes what the listener for workstations needs, where one is configured.
#[must_use]
pub fn listener(usage: &config::Usage) -> Option<push::Settings> {
    let accounts: BTreeMap<_, _> = usage
        .accounts
        .iter()
        .filter(|account| account.source == UsageSource::Push)
        .filter_map(|account| Some((account.name.clone(), account.push_token_file.clone()?)))
        .collect();
    usage.listen.map(|listen| push::Settings { listen, accounts })
}

fn endpoint(account: &Account, http: &Client, store: &Store, place: Place) -> anyhow::Result<anthropic::Anthropic> {
    let url = |given: &Option<url::Url>, usual: &str| match given {
        Some(url) => Ok(url.clone()),
        None => usual.parse().context("a URL of this program itself"),
    };
    let user_agent = account.user_agent.clone().unwrap_or_else(|| wire::USER_AGENT.to_owned());
    let login = refresh::Settings {
        account: account.name.clone(),
        token_url: url(&account.token_url, refresh::TOKEN_URL)?,
        client_id: refresh::CLIENT_ID.to_owned(),
        user_agent: user_agent.clone(),
    };
    let settings = anthropic::Settings {
        account: account.name.clone(),
        url: url(&account.usage_url, anthropic::USAGE_URL)?,
        user_agent,
    };
    let login = Login::new(login, http.clone(), place, store.clone());
    Ok(anthropic::Anthropic::new(settings, http.clone(), login))
}

/// Where an account's login is kept. `secret` as for [`adapters`].
///
/// # Errors
/// Where it is in a Secret that cannot be opened.
pub fn place(account: &Account, secret: Option<&dyn Fn(secret::Settings) -> secret::Place>) -> anyhow::Result<Place> {
    let layout = layout(account);
    if let (Some(name), Some(namespace)) = (&account.secret, &account.namespace) {
        let (namespace, name, mount) = (namespace.clone(), name.clone(), account.mount.clone());
        let open = secret.context("a login is in a Kubernetes Secret, and there is no cluster")?;
        return Ok(Place::Secret(Box::new(open(secret::Settings { namespace, name, layout, mount }))));
    }
    let path = account.directory.clone().unwrap_or_default();
    Ok(Place::Directory(directory::Place::new(directory::Settings { path, layout })))
}

fn layout(account: &Account) -> Layout {
    let keys = &account.token_keys;
    if keys.is_empty() {
        return account.secret_key.clone().map_or_else(Layout::default, |key| Layout::Document { key });
    }
    let of = |name: &str| keys.get(name).cloned();
    Layout::Keys(Keys {
        access_token: of("access_token").unwrap_or(Keys::default().access_token),
        refresh_token: of("refresh_token"),
        expires_at: of("expires_at"),
        refresh_expires_at: of("refresh_expires_at"),
        scopes: of("scopes"),
        plan: of("plan"),
    })
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};

    use super::*;

    /// The layout of the first account with these keys.
    fn layout_of(keys: &str) -> Layout {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pilothouse.toml");
        let toml = format!(
            "[matrix]\nuser = \"bot\"\npassword = \"x\"\n[policy]\nusers = [\"@you:example.org\"]\n\
             [[usage.accounts]]\nsecret = \"s\"\nnamespace = \"n\"\n{keys}"
        );
        std::fs::write(&path, toml).unwrap();
        let sources = Sources { argument: Some(path), environment: BTreeMap::new(), usual: vec![] };
        layout(&Config::load(&sources).unwrap().config.usage.accounts[0])
    }

    #[test]
    fn the_keys_of_the_configuration_say_how_a_login_is_written_down() {
        assert_eq!(layout_of(""), Layout::default());
        assert_eq!(layout_of("secret_key = \"login\""), Layout::Document { key: "login".to_owned() });
        let keys = Keys {
            access_token: "token".to_owned(),
            refresh_token: Some("again".to_owned()),
            expires_at: Some("until".to_owned()),
            refresh_expires_at: None,
            scopes: None,
            plan: None,
        };
        let written = "token_keys = { access_token = \"token\", refresh_token = \"again\", expires_at = \"until\" }";
        assert_eq!(layout_of(written), Layout::Keys(keys));
    }
}
