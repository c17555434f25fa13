//! [`Report`] → the words that people read, as plain text and as HTML. Pure, and the only place that speaks.
//!
//! Both forms are written by one [`Text`], so they cannot say different things, and every foreign word (names, log
//! lines, the cluster's own messages) is escaped by construction.

mod guard;
mod help;
mod history;
mod refusal;
mod rollout;
mod status;
mod text;
mod trust;
pub mod usage;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

pub use history::Deed;
pub use refusal::in_a_word;
pub use text::{Text, Words, span};
pub use trust::{Person, Proof};

use crate::cluster::{ClusterError, Description, Drift, Left, Progress, Target};
use crate::command::{Mistake, Verb};
use crate::policy::Refusal;
use crate::store::losses::Loss;
use crate::usage::accuracy::Record;
use crate::usage::guard::Notice;
use crate::usage::overview::Overview;

/// Something to tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// What can be said here.
    Help {
        /// One command, or all that are offered.
        about: Option<Verb>,
        /// What this person may use.
        offered: Vec<Verb>,
        /// What the cluster does not let Pilothouse do, for anybody.
        forbidden: Vec<Verb>,
        /// Names of the targets.
        targets: Vec<String>,
        /// What a command begins with in a room of many.
        prefix: String,
    },
    /// How workloads are.
    Status {
        /// Each target with what is known of it.
        targets: Vec<(Target, Result<Description, ClusterError>)>,
        /// The time of reading.
        now: Timestamp,
    },
    /// Who did what and who tried, newest first.
    History {
        /// The commands.
        deeds: Vec<Deed>,
        /// The zone for times.
        zone: TimeZone,
    },
    /// People and their keys.
    Trust {
        /// What makes a device count.
        proof: Proof,
        /// The people.
        people: Vec<Person>,
        /// What whoever runs Pilothouse should see to.
        advice: Vec<String>,
    },
    /// The configuration pins another key, and wins.
    PinnedByConfiguration {
        /// Whose.
        user: String,
    },
    /// A key was accepted.
    Repinned {
        /// Whose.
        user: String,
        /// Which device; the identity otherwise.
        device: Option<String>,
        /// The key.
        fingerprint: String,
    },
    /// The fingerprint is not the one that the homeserver serves now.
    NotShown {
        /// Whose.
        user: String,
        /// Which device; the identity otherwise.
        device: Option<String>,
        /// What is served now, if anything.
        shown: Option<String>,
    },
    /// The version.
    Version,
    /// How full the subscription's limits are.
    Usage(Overview),
    /// What happened to one of them.
    UsageNews(Box<usage::Bulletin>),
    /// What was told of one of them is over.
    UsageOver {
        /// The words that were told.
        said: String,
        /// How it ended.
        end: String,
        /// When.
        at: Timestamp,
        /// The zone for times.
        zone: TimeZone,
    },
    /// What is watched from now on.
    UsageArmed(Overview),
    /// What a chart shows, for whoever cannot see it.
    UsageChart(String),
    /// How forecasts have fared, by estimator.
    UsageAccuracy(Vec<Record>),
    /// The provider may not be asked yet.
    UsageNotYet {
        /// When it may.
        at: Timestamp,
        /// Now.
        now: Timestamp,
        /// The zone for times.
        zone: TimeZone,
    },
    /// Alerts are silent until a time, or told again.
    UsageMuted {
        /// Until when.
        until: Option<Timestamp>,
        /// Now.
        now: Timestamp,
        /// The zone for times.
        zone: TimeZone,
    },
    /// Windows of an account cannot be read any more.
    UsageUnreadable {
        /// The account.
        account: String,
        /// The provider's names of the windows.
        windows: Vec<String>,
    },
    /// The login of an account dies in so many days.
    LoginDies {
        /// The account.
        account: String,
        /// Days.
        days: u8,
    },
    /// An account cannot be asked until somebody does something, or could not for a long time.
    UsageTrouble {
        /// The account.
        account: String,
        /// Why, and what to do.
        why: String,
        /// For how long there was no good answer, where that is the news.
        age: Option<SignedDuration>,
    },
    /// The order is written and on its way.
    Underway {
        /// The target.
        target: Target,
        /// What is done.
        deed: Change,
        /// What else owns the replicas.
        owners: Vec<String>,
    },
    /// Nothing had to change.
    AlreadySo {
        /// The target.
        target: Target,
        /// Replicas.
        replicas: i32,
        /// Ready ones.
        ready: i32,
        /// Pods that still exist.
        left: Left,
    },
    /// A newer command for the target had its turn before this one could be read.
    Overtaken {
        /// The target.
        target: Target,
        /// What was asked for.
        verb: Verb,
    },
    /// A step or the end of a rollout.
    Rollout {
        /// The target.
        target: Target,
        /// What is done.
        deed: Change,
        /// The step.
        progress: Progress,
        /// How long it takes so far.
        after: SignedDuration,
        /// What else owns the replicas.
        owners: Vec<String>,
    },
    /// A newer command for the target ended this one's watch.
    Superseded {
        /// The target.
        target: Target,
        /// What was done.
        deed: Change,
        /// Who gave the newer one.
        by: String,
        /// The newer one.
        newer: Verb,
    },
    /// The cluster said no, or nothing.
    Failed {
        /// The target.
        target: Target,
        /// What was tried.
        verb: Verb,
        /// The answer.
        error: ClusterError,
        /// Whether the change was tried, or only what comes before it.
        tried: bool,
    },
    /// `restart` without its permission.
    RestartNotOffered {
        /// The target.
        target: Target,
    },
    /// An order that a restart of Pilothouse interrupted and that was not finished.
    Interrupted {
        /// The target.
        target: Target,
        /// What was done.
        verb: Verb,
    },
    /// Commands that came too late to act on.
    Stale {
        /// Their texts.
        texts: Vec<String>,
        /// The limit.
        limit: SignedDuration,
    },
    /// Why not.
    Refused {
        /// Who asked.
        who: String,
        /// Why.
        refusal: Refusal,
    },
    /// What was probably meant.
    Mistaken {
        /// What is wrong.
        mistake: Mistake,
        /// Names of the targets.
        targets: Vec<String>,
    },
    /// Something that nobody asked for.
    Drifted {
        /// The target.
        target: Target,
        /// What happened.
        drift: Drift,
    },
    /// What the usage guard does, or does not do.
    Guard {
        /// What it is.
        notice: Notice,
        /// The zone for times.
        zone: TimeZone,
    },
    /// The usage guard does not give back what somebody else had a hand in.
    LeftAlone {
        /// The target.
        target: Target,
        /// Its replicas now.
        replicas: i32,
        /// Who gave an order for it; `None`: somebody elsewhere.
        by: Option<String>,
    },
    /// A message whose key did not come.
    Unreadable,
    /// Back after an outage of the homeserver.
    Back {
        /// How long it lasted.
        after: SignedDuration,
        /// Messages that waited.
        waited: usize,
        /// Not every room could be read yet.
        more: bool,
    },
    /// The database was lost or emptied beside a device that goes on.
    Forgotten,
    /// More was said in a room during an outage than is read again.
    Cut {
        /// So many events are read again,
        events: usize,
        /// of so much time.
        reach: SignedDuration,
    },
    /// The homeserver does not show what was said in a room.
    Unheard {
        /// It is not tried any more.
        passed_over: bool,
    },
    /// Words for a room were given up: too much waited to go out, or it could not.
    Lost(Loss),
    /// The predecessor's habit of repeating what is no command.
    Echo(String),
    /// The target is not in the configuration any more.
    NotConfigured {
        /// Its name.
        target: String,
    },
}

/// A change to a workload, absolute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Replicas from, to.
    Scale {
        /// Before.
        from: i32,
        /// After.
        to: i32,
    },
    /// Pods are replaced.
    Restart,
}

impl Change {
    /// Gives the verb that people know it by.
    #[must_use]
    pub fn verb(self) -> Verb {
        match self {
            Self::Scale { to: 0, .. } => Verb::Stop,
            Self::Scale { .. } => Verb::Start,
            Self::Restart => Verb::Restart,
        }
    }
}

/// Writes the words.
#[must_use]
pub fn words(report: &Report) -> Words {
    match report {
        Report::Help { about, offered, forbidden, targets, prefix } => help::help(*about, offered, forbidden, targets, prefix),
        Report::Status { targets, now } => status::words(targets, *now),
        Report::History { deeds, zone } => history::words(deeds, zone),
        Report::Trust { proof, people, advice } => trust::words(*proof, people, advice),
        Report::PinnedByConfiguration { user } => Text::new()
            .say("🚫 Nothing was changed: the configuration pins another key of ")
            .strong(user)
            .say(" (trust.pins), and it wins. Whoever runs Pilothouse can change it there.")
            .words(),
        Report::Repinned { user, device, fingerprint } => trust::repinned(user, device.as_deref(), fingerprint),
        Report::NotShown { user, device, shown } => trust::not_shown(user, device.as_deref(), shown.as_deref()),
        Report::Version => Text::new().say("Pilothouse ").say(env!("CARGO_PKG_VERSION")).words(),
        Report::Usage(overview) => usage::overview(overview),
        Report::UsageNews(bulletin) => usage::bulletin(bulletin),
        Report::UsageOver { said, end, at, zone } => usage::over(said, end, *at, zone),
        Report::UsageArmed(overview) => usage::armed(overview),
        Report::UsageChart(alternative) => Text::new().say(alternative).words(),
        Report::UsageAccuracy(records) => usage::accuracy(records),
        Report::UsageNotYet { at, now, zone } => usage::not_yet(*at, *now, zone),
        Report::UsageMuted { until, now, zone } => usage::muted(*until, *now, zone),
        Report::UsageUnreadable { account, windows } => usage::unreadable(account, windows),
        Report::LoginDies { account, days } => usage::dying(account, *days),
        Report::UsageTrouble { account, why, age } => usage::trouble(account, why, *age),
        Report::Underway { target, deed, owners } => rollout::underway(target, *deed, owners),
        Report::AlreadySo { target, replicas, ready, left } => rollout::already(target, *replicas, *ready, *left),
        Report::Overtaken { target, verb } => Text::new()
            .say("⏱️ ")
            .strong(&target.label)
            .say(": this ")
            .say(verb.word())
            .say(" came to me after a newer command for it had its turn, so it was left. Say it again if it is still wanted.")
            .words(),
        Report::Rollout { target, deed, progress, after, owners } => {
            rollout::words(target, *deed, progress, *after, owners)
        }
        Report::Superseded { target, deed, by, newer } => rollout::superseded(target, *deed, by, *newer),
        Report::Failed { target, verb, error, tried } => rollout::failed(target, *verb, error, *tried),
        Report::RestartNotOffered { target } => Text::new()
            .say("🚫 ")
            .strong(&target.label)
            .say(": restart is not offered. It needs the permission to patch the object, which would also allow changing its image; ")
            .say("whoever runs Pilothouse can add it with the overlay k8s/overlays/restart.")
            .words(),
        Report::Interrupted { target, verb } => Text::new()
            .say("⚠️ ")
            .strong(&target.label)
            .say(": Pilothouse was interrupted during this ")
            .say(verb.word())
            .say(" and did not go on with it. Look at ")
            .code(&format!("status {}", target.name))
            .say(", and say it again if it is still wanted.")
            .words(),
        Report::Stale { texts, limit } => stale(texts, *limit),
        Report::Refused { who, refusal } => refusal::words(who, refusal),
        Report::Mistaken { mistake, targets } => help::mistaken(mistake, targets),
        Report::Drifted { target, drift } => rollout::drifted(target, drift),
        Report::Guard { notice, zone } => guard::words(notice, zone),
        Report::LeftAlone { target, replicas, by } => guard::left_alone(target, *replicas, by.as_deref()),
        Report::Unreadable => {
            Text::new().say("🔑 I could not read this: its key has not reached me. Please send it again.").words()
        }
        Report::Back { after, waited, more } => back(*after, *waited, *more),
        Report::Forgotten => Text::new()
            .say("⚠️ My database was lost or emptied. What was done before, and the replicas that a ")
            .code("stop")
            .say(" took, I do not know any more, and I meet everybody anew whom ")
            .code("trust.pins")
            .say(" does not name: compare their keys with ")
            .code("trust")
            .say(" before you go on. Nor do I know which messages I have seen: whoever runs the homeserver could repeat an old one. A ")
            .say("Matrix store that is begun anew as well cannot read those any more.")
            .words(),
        Report::Cut { events, reach } => Text::new()
            .say("📡 While I was away more was said here than I read again: the last ")
            .say(&format!("{events} events, or {}. Older commands were not seen.", span(*reach)))
            .words(),
        Report::Unheard { passed_over: false } => Text::new()
            .say("📡 The homeserver does not give me what was said here lately. I keep asking, and act on nothing here until it does.")
            .words(),
        Report::Unheard { passed_over: true } => Text::new()
            .say("📡 The homeserver did not give me a part of what was said here. Nothing of that was done: please say it again.")
            .words(),
        Report::Lost(loss) => lost(*loss),
        Report::Echo(text) => Text::new().say(text).words(),
        Report::NotConfigured { target } => Text::new()
            .say("❌ ")
            .strong(target)
            .say(" is not in the configuration any more; nothing was done.")
            .words(),
    }
}

fn stale(texts: &[String], limit: SignedDuration) -> Words {
    let mut text = Text::new().say("⏱️ Too old to act on (more than ").say(&span(limit)).say(" on the way): ");
    for (i, stale) in texts.iter().enumerate() {
        text = text.say(if i == 0 { "" } else { ", " }).code(stale);
    }
    text.say(". Nothing was done; say it again if it is still wanted.").words()
}

fn back(after: SignedDuration, waited: usize, more: bool) -> Words {
    let text = Text::new().say("📡 Back after ").say(&span(after)).say(". ");
    let text = match waited {
        0 if more => text.say("Nothing has come yet."),
        0 => text.say("Nothing waited."),
        1 => text.say("One message waited."),
        n => text.say(&format!("{n} messages waited.")),
    };
    if more {
        return text.say(" The homeserver does not give out every room yet: more may come.").words();
    }
    text.words()
}

fn lost(loss: Loss) -> Words {
    // In UTC: it is said by a part that knows no zone.
    let since = loss.since.strftime("%Y-%m-%d %H:%M UTC");
    let news = match loss.words {
        1 => format!("One message of {since} could not be said here and was given up"),
        many => format!("{many} messages could not be said here and were given up, the first of {since}"),
    };
    Text::new()
        .say(&format!("⚠️ {news}. What was accepted was done all the same: "))
        .code("history")
        .say(" says what. Ask again for an answer that did not come.")
        .words()
}

#[cfg(test)]
mod tests;
