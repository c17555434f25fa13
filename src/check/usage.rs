//! The watched accounts: their logins, looked at and not renewed, and how the daemon fared with each of their sources. Nothing
//! is asked of the provider: it counts the questions.

use jiff::{SignedDuration, Timestamp};

use super::{Finding, guard};
use crate::cluster::Cluster;
use crate::config::{Account, Config, UsageSource};
use crate::daemon;
use crate::reply::span;
use crate::store::{self, Store};
use crate::usage::credential::{Credential, secret};
use crate::usage::guard::STALE_AFTER;
use crate::usage::source::{anthropic, program_row};
use crate::usage::{sources, wire};

const AREA: &str = "usage";
/// Without it the provider says nothing of usage.
const SCOPE: &str = "user:profile";

pub(super) async fn findings(config: &Config, applied: bool) -> Vec<Finding> {
    let accounts = &config.usage.accounts;
    if accounts.is_empty() {
        return vec![Finding::skipped(AREA, "accounts", "none is watched ([[usage.accounts]])")];
    }
    let mut findings = Vec::new();
    if accounts.iter().any(|account| account.source == UsageSource::AnthropicOauth) {
        let detail =
            "the provider's terms may not permit other programs to use a subscription's login: it is your decision";
        findings.push(Finding::skipped(AREA, "terms", detail));
    }
    if let Err(error) = wire::client(anthropic::TIMEOUT, config.usage.ca_file.as_deref()) {
        findings.push(Finding::failure(
            AREA,
            "provider",
            format!("cannot be asked: {error:#}"),
            "name a PEM file with the certificates of that CA",
        ));
    }
    let cluster = Cluster::connect(&config.kubernetes).await.ok();
    // Made by the daemon, so that it belongs to the daemon's user.
    let folder = &config.matrix.store;
    let store = daemon::has_store(folder).then(|| daemon::open_store_beside(folder).ok()).flatten();
    let stale_after = config.usage.interval * STALE_AFTER;
    for account in accounts {
        match account.source {
            UsageSource::AnthropicOauth | UsageSource::Push if !applied => {
                let subject = format!("{} login", account.name);
                findings.push(Finding::skipped(AREA, subject, "looked at where it will run, once it is applied"));
            }
            UsageSource::AnthropicOauth => findings.extend(login(account, cluster.as_ref()).await),
            UsageSource::Push => findings.push(token(account)),
            UsageSource::Command => {}
        }
        let row = match &store {
            Some(store) => row(account, store).await.unwrap_or_default(),
            None => store::usage::Account::default(),
        };
        findings.push(told(account, &row, stale_after, now()));
    }
    findings.extend(guard::findings(config, cluster.as_ref(), store.as_ref()).await);
    findings
}

async fn login(account: &Account, cluster: Option<&Cluster>) -> Vec<Finding> {
    let subject = format!("{} login", account.name);
    let open = cluster.map(|cluster| move |settings| secret::Place::new(cluster.client(), settings));
    let open = open.as_ref().map(|open| open as &dyn Fn(secret::Settings) -> secret::Place);
    let looked = match sources::place(account, open) {
        Ok(place) => place.look().await.map_err(|error| error.to_string()),
        Err(error) => Err(format!("{error:#}")),
    };
    let readable = looked.is_ok();
    let mut findings = vec![match looked {
        Ok(credential) => judge(subject, &credential, now()),
        Err(why) => Finding::failure(
            AREA,
            subject,
            why,
            "make an own login (CLAUDE_CONFIG_DIR=/some/folder claude, then /login) and put it there; `pilothouse init` helps",
        ),
    }];
    if let Some(folder) = account.directory.as_ref().filter(|_| readable) {
        // It has no name there, so nobody sees it come and go.
        if let Err(error) = tempfile::tempfile_in(folder) {
            findings.push(Finding::failure(
                AREA,
                format!("{} login", account.name),
                format!("cannot be renewed: {} cannot be written ({error})", folder.display()),
                "let the user of pilothouse write there; without that it ends with its access token, after some hours",
            ));
        }
    }
    if let (Some(cluster), Some(name), Some(namespace)) = (cluster, &account.secret, &account.namespace) {
        for access in cluster.secret_access(namespace, name, account.mount.is_some()).await {
            let subject = format!("{} secrets/{name} in {namespace}", access.verb);
            findings.push(match access.allowed {
                Ok(true) => Finding::good(AREA, subject, "the login"),
                Ok(false) => Finding::failure(
                    AREA,
                    subject,
                    format!("missing: {}", access.lost_without),
                    "add the component k8s/components/usage, with the Secret's name",
                ),
                Err(error) => Finding::warning(AREA, subject, format!("not known: {error}"), "ask again later"),
            });
        }
    }
    findings
}

fn judge(subject: String, credential: &Credential, now: Timestamp) -> Finding {
    let plan = credential.plan.as_deref().unwrap_or("a plan that it does not name");
    if !credential.scopes.is_empty() && !credential.scopes.iter().any(|scope| scope == SCOPE) {
        return Finding::failure(
            AREA,
            subject,
            format!("has no scope {SCOPE}, so it may not read usage"),
            "logins of `claude setup-token` never have it: log in with `claude` and `/login`",
        );
    }
    if !credential.can_renew() {
        let end = match credential.expires_at {
            Some(at) if at <= now => "has ended and cannot be renewed: it has no refresh token".to_owned(),
            Some(at) => {
                format!("cannot be renewed: it has no refresh token and ends in {}", span(at.duration_since(now)))
            }
            None => "cannot be renewed: it has no refresh token and ends with its access token".to_owned(),
        };
        return Finding::failure(
            AREA,
            subject,
            end,
            "log in with `claude` and `/login`, and put the whole login there",
        );
    }
    match credential.refresh_expires_at {
        Some(at) if at <= now => {
            Finding::failure(AREA, subject, "has ended", "log in again and put the new login in its place")
        }
        Some(at) => {
            let left = at.duration_since(now);
            let detail = format!("{plan}; it ends in {}", span(left));
            if left.as_hours() < 24 * 7 {
                Finding::warning(AREA, subject, detail, "log in again and put the new login in its place")
            } else {
                Finding::good(AREA, subject, detail)
            }
        }
        None => Finding::good(AREA, subject, plan),
    }
}

fn token(account: &Account) -> Finding {
    let subject = format!("{} token", account.name);
    let Some(file) = &account.push_token_file else { return Finding::skipped(AREA, subject, "none") };
    match std::fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => {
            Finding::failure(AREA, subject, format!("{} is empty", file.display()), "write a long random token into it")
        }
        Ok(_) => Finding::good(AREA, subject, format!("{}", file.display())),
        Err(error) => Finding::failure(
            AREA,
            subject,
            format!("{} cannot be read: {error}", file.display()),
            "write a long random token into it, for the user of pilothouse alone",
        ),
    }
}

/// The store's row of one source: a program beside the endpoint has its own.
async fn row(account: &Account, store: &Store) -> Result<store::usage::Account, store::StoreError> {
    match account.source {
        UsageSource::Command => store.account(&program_row(&account.name)).await,
        UsageSource::AnthropicOauth | UsageSource::Push => store.account(&account.name).await,
    }
}

/// How the daemon fared with one source, as its store says.
fn told(account: &Account, row: &store::usage::Account, stale_after: SignedDuration, now: Timestamp) -> Finding {
    let program = account.command.first().map_or("", String::as_str);
    let (subject, last, none, remedy) = match account.source {
        UsageSource::AnthropicOauth => (
            format!("{} answers", account.name),
            row.good_at,
            "none yet; `pilothouse usage` asks once".to_owned(),
            "is Pilothouse running? Its log says how the last question went",
        ),
        UsageSource::Command => (
            format!("{} program", account.name),
            row.good_at,
            format!("{program} has answered nothing yet; `pilothouse usage` runs it once"),
            "is Pilothouse running? Its log says how the program fared",
        ),
        UsageSource::Push => (
            format!("{} pushes", account.name),
            row.pushed_at,
            "none yet; the README has the hook for workstations".to_owned(),
            "does a workstation work, with the hook in its settings, and does it reach usage.listen?",
        ),
    };
    // What is pushed cannot fail here; the row may be that of the endpoint.
    if let Some(trouble) = row.trouble.as_ref().filter(|_| account.source != UsageSource::Push) {
        return Finding::warning(
            AREA,
            subject,
            trouble.clone(),
            "until it answers, the last numbers stay, with their age",
        );
    }
    let Some(age) = last.map(|at| now.duration_since(at)) else { return Finding::skipped(AREA, subject, none) };
    if age > stale_after {
        let detail = format!("the last one {} ago: too old for the usage guard, which does nothing by it", span(age));
        return Finding::warning(AREA, subject, detail, remedy);
    }
    Finding::good(AREA, subject, format!("the last one {} ago", span(age)))
}

#[expect(clippy::disallowed_methods, reason = "a subcommand happens now")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests;
