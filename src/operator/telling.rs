//! What people may read, gathered.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};

use super::work::Work;
use super::{Book, Operator, now};
use crate::chat::{Advice, contact};
use crate::cluster::{Workload, Writer};
use crate::command::Verb;
use crate::policy::Topic;
use crate::reply::{Change, Person, Report};
use crate::store::inbox::Entry;
use crate::store::{Store, StoreError, outcome};

/// How long `help` waits for the cluster to say what is allowed.
const HELP_PATIENCE: Duration = Duration::from_secs(1);
/// Orders of a target that are looked at for who scaled it last: some of them change nothing.
const LOOK_BACK: u32 = 16;

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
            Topic::Status(names) => self.status(names, book).await?,
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

    async fn status(&self, names: &[String], book: &Book) -> Result<Report, StoreError> {
        let now = now();
        let targets = names.iter().filter_map(|name| book.target(name)).cloned();
        // Of several, nothing is said about it.
        let is_alone = names.len() == 1;
        let read = targets.map(|target| async {
            let mut description = self.cluster.describe(&target, now).await;
            match &mut description {
                Ok(description) if is_alone => {
                    let orders = self.store.ordered(&target.key(), None, LOOK_BACK).await?;
                    let workload = &mut description.workload;
                    workload.scaled_by = own_scaling(&orders, workload).or(workload.scaled_by.take());
                }
                Ok(_) => {}
                Err(error) => self.metrics.cluster_error(error),
            }
            Ok::<_, StoreError>((target, description))
        });
        Ok(Report::Status { targets: try_join_all(read).await?, now })
    }

    async fn trust(&self, book: &Book) -> Result<Report, StoreError> {
        let people = people(&self.store, &book.rules.users, &book.pins).await?;
        Ok(Report::Trust { proof: book.proof, people, advice: advice(&self.store).await? })
    }
}

/// For whom the replicas were changed here, where nothing has changed the object since. The API server knows no more than that
/// it was Pilothouse, and after a scale to 0 not even that.
fn own_scaling(orders: &[Entry], workload: &Workload) -> Option<Writer> {
    orders.iter().find_map(|entry| {
        let work = Work::of(entry)?;
        let is_failed = entry.outcome.as_ref().is_none_or(|outcome| outcome.starts_with(outcome::FAILED));
        let moved = matches!(work.change, Change::Scale { from, to } if from != to && to == workload.desired);
        let is_last = moved && !is_failed && work.version.as_ref() == Some(&workload.version);
        is_last.then(|| Writer { manager: format!("pilothouse for {}", entry.sender), at: Some(entry.received_at) })
    })
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
        let (keys, configured) = (store.keys(user).await?, configured.get(user).cloned());
        let vouched = contact::is_vouched_for(&keys, configured.as_deref());
        people.push(Person { user: user.clone(), keys, configured, vouched });
    }
    Ok(people)
}

/// What whoever runs Pilothouse should do, as noted.
///
/// # Errors
/// [`StoreError`] where the store cannot be read.
pub async fn advice(store: &Store) -> Result<Vec<String>, StoreError> {
    let noted = Advice::noted(store).await?.unwrap_or_default();
    Ok(noted.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Version;
    use crate::operator::samples::{order, workload};

    #[test]
    fn who_scaled_last_is_named_only_where_nothing_came_after() {
        let orders = [
            order("@bob:hs", (0, 0), 4, Some("nothing to change")),
            order("@alice:hs", (2, 0), 4, Some("scaled 2 → 0, done in 1 s")),
            order("@eve:hs", (0, 2), 3, Some("scaled 0 → 2")),
        ];
        let named =
            |orders: &[Entry], generation| own_scaling(orders, &workload(0, generation)).map(|writer| writer.manager);
        assert_eq!(named(&orders, 4).as_deref(), Some("pilothouse for @alice:hs"));
        assert_eq!(named(&orders, 5), None, "somebody has changed it since");
        assert_eq!(named(&orders, 3), None, "it has other replicas than that order gave it");
        let anew = Version { uid: "another".to_owned(), ..workload(0, 4).version };
        let anew = Workload { version: anew, ..workload(0, 4) };
        assert_eq!(own_scaling(&orders, &anew), None, "it is another object of that name");
        // What failed may not be what the object shows, and what goes on has not ended so.
        assert_eq!(named(&[order("@alice:hs", (2, 0), 4, Some("failed: forbidden"))], 4), None);
        assert_eq!(named(&[order("@alice:hs", (2, 0), 4, None)], 4), None);
    }
}
