//! The watched accounts: their logins, looked at and not renewed, and how the daemon fared with them. Nothing is asked of
//! the provider: it counts the questions.

use jiff::Timestamp;

use super::Finding;
use crate::cluster::Cluster;
use crate::config::{Account, Config, UsageSource};
use crate::daemon;
use crate::reply::span;
use crate::store::Store;
use crate::usage::credential::{Credential, secret};
use crate::usage::sources;

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
    let cluster = Cluster::connect(&config.kubernetes).await.ok();
    // Made by the daemon, so that it belongs to the daemon's user.
    let folder = &config.matrix.store;
    let store = folder.join(daemon::DATABASE).is_file().then(|| daemon::open_store_beside(folder).ok()).flatten();
    for account in accounts {
        match account.source {
            UsageSource::AnthropicOauth | UsageSource::Push if !applied => {
                let subject = format!("{} login", account.name);
                findings.push(Finding::skipped(AREA, subject, "looked at where it will run, once it is applied"));
            }
            UsageSource::AnthropicOauth => findings.extend(login(account, cluster.as_ref()).await),
            UsageSource::Push => findings.push(token(account)),
            UsageSource::Command => {
                findings.push(Finding::good(
                    AREA,
                    account.name.clone(),
                    format!("printed by {}", account.command.first().map_or("", String::as_str)),
                ));
            }
        }
        if let Some(store) = &store {
            findings.extend(told(account, store).await);
        }
    }
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
    let mut findings = vec![match looked {
        Ok(credential) => judge(subject, &credential, now()),
        Err(why) => Finding::failure(
            AREA,
            subject,
            why,
            "make an own login (CLAUDE_CONFIG_DIR=/some/folder claude, then /login) and put it there; `pilothouse init` helps",
        ),
    }];
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

/// How the daemon fared with the account, as its store says.
async fn told(account: &Account, store: &Store) -> Option<Finding> {
    let row = store.account(&account.name).await.ok()?;
    let subject = format!("{} answers", account.name);
    let now = now();
    if let Some(trouble) = row.trouble {
        return Some(Finding::warning(AREA, subject, trouble, "see the log; the last numbers stay, with their age"));
    }
    Some(match row.good_at {
        Some(at) => Finding::good(AREA, subject, format!("the last one {} ago", span(now.duration_since(at)))),
        None => Finding::skipped(AREA, subject, "none yet; `pilothouse usage` asks once"),
    })
}

#[expect(clippy::disallowed_methods, reason = "a subcommand happens now")]
fn now() -> Timestamp {
    Timestamp::now()
}
