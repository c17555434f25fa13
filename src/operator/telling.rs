//! What people may read, gathered.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;

use super::{Book, Operator, now};
use crate::chat::Advice;
use crate::command::Verb;
use crate::policy::Topic;
use crate::reply::{Person, Report};
use crate::store::{Store, StoreError};

/// How long `help` waits for the cluster to say what is allowed.
const HELP_PATIENCE: Duration = Duration::from_secs(1);

impl Operator {
    pub(super) async fn tell(&self, topic: &Topic, book: &Book) -> Result<Report, StoreError> {
        Ok(match topic {
            Topic::Help { about, offered, targets } => Report::Help {
                about: *about,
                offered: offered.clone(),
                forbidden: self.forbidden(*about, offered, book).await,
                targets: targets.clone(),
                prefix: book.prefix.clone(),
            },
            Topic::Status(names) => self.status(names, book).await,
            Topic::History { targets, verbs } => self.history(targets, verbs, book).await?,
            Topic::Trust => self.trust(book).await?,
            Topic::Usage(usage) => self.usage(*usage, book).await?,
            Topic::Version => Report::Version,
        })
    }

    /// The commands of a help that the cluster refuses on every target. What is not known in a moment is not left out.
    async fn forbidden(&self, about: Option<Verb>, offered: &[Verb], book: &Book) -> Vec<Verb> {
        let is_shown = offered.contains(&Verb::Restart) && about.is_none_or(|verb| verb == Verb::Restart);
        if !is_shown || book.targets.is_empty() {
            return Vec::new();
        }
        let asked = join_all(book.targets.iter().map(|target| self.cluster.may_restart(target)));
        match tokio::time::timeout(HELP_PATIENCE, asked).await {
            Ok(answers) if answers.iter().all(|answer| *answer == Ok(false)) => vec![Verb::Restart],
            _ => Vec::new(),
        }
    }

    async fn status(&self, names: &[String], book: &Book) -> Report {
        let now = now();
        let targets = names.iter().filter_map(|name| book.target(name)).cloned();
        let read = targets.map(|target| async {
            let description = self.cluster.describe(&target, now).await;
            if let Err(error) = &description {
                self.metrics.cluster_error(error);
            }
            (target, description)
        });
        Report::Status { targets: join_all(read).await, now }
    }

    async fn trust(&self, book: &Book) -> Result<Report, StoreError> {
        let people = people(&self.store, &book.rules.users, &book.pins).await?;
        let advice = Advice::noted(&self.store).await?.unwrap_or_default();
        Ok(Report::Trust { proof: book.proof, people, advice })
    }
}

/// Gathers what is known of people's keys; `configured` holds the master keys that the configuration pins.
///
/// # Errors
/// [`StoreError`] where the store cannot be read.
pub async fn people(
    store: &Store,
    users: impl IntoIterator<Item = &String>,
    configured: &BTreeMap<String, String>,
) -> Result<Vec<Person>, StoreError> {
    let mut people = Vec::new();
    for user in users {
        let keys = store.keys(user).await?;
        people.push(Person { user: user.clone(), keys, configured: configured.get(user).cloned() });
    }
    Ok(people)
}
