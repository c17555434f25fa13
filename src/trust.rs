//! `pilothouse trust`: who is trusted, seen from the machine; beside a running daemon, which reads the pins anew at each
//! command.

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::chat::contact;
use crate::chat::outside::{Outside, Served, is_logged_in};
use crate::command::{Command, Grammar, Mistake, Reading, read};
use crate::config::{Config, TrustMode};
use crate::daemon;
use crate::message::{Address, Standing};
use crate::operator;
use crate::policy::{Actor, Order, judge};
use crate::reply::{Report, words};
use crate::store::{Store, StoreError};

/// Lists people and devices, or accepts a key.
///
/// # Errors
/// Where the store cannot be opened or the key was not accepted.
pub async fn run(config: &Config, accept: Option<(String, Vec<String>)>) -> anyhow::Result<()> {
    let store = daemon::open_store_beside(&config.matrix.store)?;
    let is_logged_in = is_logged_in(&config.matrix.store).unwrap_or(false);
    if is_logged_in && !store.has_begun().await? {
        // What is noted now would hide from the daemon's start that it was lost.
        anyhow::bail!(
            "the journal here is new, although this device has logged in before: the one of then was lost. Start the daemon first: it \
             says so in the room and meets everybody anew; then compare their keys here"
        );
    }
    if is_logged_in {
        refresh(config, &store).await;
    } else {
        eprintln!("pilothouse: the bot has not logged in yet, so nobody's keys are known; start it once");
    }
    let report = match accept {
        None => list(config, &store).await?,
        Some((user, fingerprint)) => accepted(config, &store, &user, &fingerprint).await?,
    };
    println!("{}", words(&report).plain);
    match report {
        Report::NotShown { .. }
        | Report::PinnedByConfiguration { .. }
        | Report::Refused { .. }
        | Report::Mistaken { .. } => anyhow::bail!("nothing was changed"),
        _ => Ok(()),
    }
}

/// Asks the homeserver what it serves now; without an answer the daemon's last look counts.
async fn refresh(config: &Config, store: &Store) {
    let asked = async {
        let mut outside = Outside::new(&config.matrix)?;
        outside.enter(&CancellationToken::new()).await?;
        outside.keys(&config.policy.users).await
    };
    match asked.await {
        Ok(served) => {
            for user in config.policy.users.iter().filter(|user| !served.contains_key(*user)) {
                eprintln!(
                    "pilothouse: {user}'s homeserver gave no answer; this is what was seen last, if anything was"
                );
            }
            for (user, served) in served {
                if let Err(error) = note(config, store, &user, served).await {
                    eprintln!("pilothouse: {error}");
                }
            }
        }
        Err(fault) => eprintln!("pilothouse: the homeserver was not asked ({fault}); this is what the daemon saw last"),
    }
}

async fn note(config: &Config, store: &Store, user: &str, served: Served) -> Result<(), StoreError> {
    let before = store.keys(user).await?;
    if !before.is_met() {
        // Whom the daemon has not met yet is met here, by the same rule.
        return contact::note(store, &config.trust, user, &before, &served, now()).await.map(drop);
    }
    // What else may count of theirs is the daemon's to say: the Matrix store has notes about it, too.
    if config.trust.mode == TrustMode::Devices && before.device_pins.is_empty() {
        eprintln!(
            "pilothouse: {user}: met under another trust.mode; the daemon's next look pins the devices that their trusted \
             identity has signed"
        );
    }
    store.observe_keys(user, served.master, served.devices, now()).await
}

async fn list(config: &Config, store: &Store) -> anyhow::Result<Report> {
    let people = operator::people(store, &config.policy.users, &config.trust.pins).await?;
    Ok(Report::Trust { proof: daemon::proof(config.trust.mode), people, advice: operator::advice(store).await? })
}

/// Goes the way of every command: read, judged, ordered, carried out.
async fn accepted(config: &Config, store: &Store, user: &str, fingerprint: &[String]) -> anyhow::Result<Report> {
    let text = format!("trust accept {user} {}", fingerprint.join(" "));
    let grammar = Grammar { targets: &[], prefix: &config.matrix.prefix };
    let command = match read(&text, grammar, Address::Mentioned) {
        Reading::Command(command @ Command::Accept { .. }) => command,
        Reading::Mistake(mistake) => return Ok(Report::Mistaken { mistake, targets: vec![] }),
        _ => return Ok(Report::Mistaken { mistake: Mistake::BadTrust, targets: vec![] }),
    };
    match judge(&daemon::rules(config), &Actor::Machine, &Standing::Proven, &command).as_deref() {
        Ok([Order::Repin(order)]) => {
            Ok(operator::accept(store, order, config.trust.pins.get(user).map(String::as_str), now()).await?)
        }
        Ok(_) => anyhow::bail!("that is no order for one key"),
        Err(refusal) => Ok(Report::Refused { who: Actor::Machine.name().to_owned(), refusal: refusal.clone() }),
    }
}

#[expect(clippy::disallowed_methods, reason = "a subcommand happens now")]
fn now() -> Timestamp {
    Timestamp::now()
}
