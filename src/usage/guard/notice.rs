//! What the guard wants done and told. Pure.

use jiff::Timestamp;

use super::deed::Will;
use super::state::digest;

/// What the guard wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A row for the inbox.
    Request(Request),
    /// Words for the room.
    Say(Notice),
}

/// A row for the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its event id: the same for the same rule, bucket, cycle, verb and target.
    pub event: String,
    /// Name of the target.
    pub target: String,
    /// What is wanted.
    pub will: Will,
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// The rule.
    pub rule: String,
    /// Targets that it is about, each by its name and by what people read.
    pub targets: Vec<(String, String)>,
    /// The bucket that it is about; of a silence, the account perhaps.
    pub bucket: String,
    /// The cycle of that bucket; of a silence and of what keeps a target down, its begin.
    pub cycle: Timestamp,
    /// What happened.
    pub news: News,
}

impl Notice {
    /// The transaction id: made from nothing but what it is about, so that the same notice is the same event.
    #[must_use]
    pub fn txn(&self) -> String {
        let cycle = self.cycle.as_millisecond().to_string();
        let mut words = vec![self.rule.as_str(), &self.bucket, &cycle, self.news.word()];
        words.extend(self.targets.iter().map(|(name, _)| name.as_str()));
        format!("ph-guard-{}", digest(&words))
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// The rule is met, and stops.
    Stops {
        /// Why.
        reasons: Vec<Reason>,
        /// A bucket that wants the target down, too, and whose reset cannot be proven: a person alone gives it back.
        unprovable: Option<String>,
    },
    /// The rule is met, and would stop if it acted.
    WouldStop(Vec<Reason>),
    /// The reset is proven, and what was stopped starts.
    Starts,
    /// The reset is proven, and what would have been stopped would start.
    WouldStart,
    /// A person started what the rule holds: it rests until the reset.
    Overridden {
        /// Full user id.
        who: String,
        /// When the reset is announced, the latest where there are several.
        until: Option<Timestamp>,
    },
    /// A person stopped what the guard had stopped: it is theirs to start.
    HandedOver {
        /// Full user id.
        who: String,
    },
    /// Nothing was heard for so long that the guard neither stops nor starts.
    Silent {
        /// The rule acts, and somebody is asked for the account, who should have answered; else it only observes, or the
        /// account's workstations sleep, perhaps.
        grave: bool,
    },
    /// The bucket for which a target was stopped holds it no more, but something else does: it is not given back yet.
    Kept(Vec<Keeper>),
    /// Another account is behind the bucket: what was stopped is left stopped, because no limit was reset.
    Switched,
    /// The provider names the bucket no more, and its announced reset has passed: what was stopped is left stopped.
    Vanished,
    /// The rule does not act on the target any more, and leaves it stopped.
    Released,
}

impl News {
    /// The word in logs and transaction ids.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stops { .. } => "stops",
            Self::WouldStop(_) => "would-stop",
            Self::Starts => "starts",
            Self::WouldStart => "would-start",
            Self::Overridden { .. } => "overridden",
            Self::HandedOver { .. } => "handed-over",
            Self::Silent { .. } => "silent",
            Self::Kept(_) => "kept",
            Self::Switched => "switched",
            Self::Vanished => "vanished",
            Self::Released => "released",
        }
    }

    /// Whether people are notified of it by name.
    #[must_use]
    pub fn is_grave(&self) -> bool {
        matches!(self, Self::Stops { .. } | Self::Silent { grave: true })
    }

    /// Whether it is about what was done, or is left undone: that is told whatever is muted.
    #[must_use]
    pub fn is_deed(&self) -> bool {
        !matches!(self, Self::WouldStop(_) | Self::WouldStart | Self::Silent { .. })
    }
}

/// Why a rule is met.
#[derive(Debug, Clone, PartialEq)]
pub struct Reason {
    /// The bucket's key.
    pub bucket: String,
    /// How full it is, in per cent.
    pub percent: f64,
    /// How likely it is to run out, where that is what the rule asks for.
    pub probability: Option<f64>,
    /// When it is empty again, as announced.
    pub resets_at: Option<Timestamp>,
}

/// What keeps a target down.
#[derive(Debug, Clone, PartialEq)]
pub enum Keeper {
    /// A rule wants it down.
    Holds {
        /// The rule,
        rule: String,
        /// because of this bucket.
        bucket: String,
        /// When its reset is announced, if that is still to come.
        until: Option<Timestamp>,
        /// Its last sample, where that is too old to act on.
        silent_since: Option<Timestamp>,
        /// Whether its reset can be proven; else a person alone ends this.
        provable: bool,
    },
    /// A rule might want it down: nobody knows, because an account that is asked does not answer.
    Silent {
        /// The rule.
        rule: String,
        /// The account, or one limit of it where only its workstations are heard.
        account: String,
        /// Its last sample.
        since: Timestamp,
    },
}

/// Says in one notice what is the same for several targets.
pub(super) fn gather(actions: Vec<Action>) -> Vec<Action> {
    let mut gathered: Vec<Action> = Vec::new();
    for action in actions {
        let Action::Say(notice) = &action else {
            gathered.push(action);
            continue;
        };
        let same = |other: &&mut Notice| {
            (&other.rule, &other.bucket, other.cycle, &other.news)
                == (&notice.rule, &notice.bucket, notice.cycle, &notice.news)
        };
        let earlier = gathered.iter_mut().filter_map(|action| match action {
            Action::Say(notice) => Some(notice),
            Action::Request(_) => None,
        });
        match earlier.into_iter().find(same) {
            Some(other) => other.targets.extend(notice.targets.iter().cloned()),
            None => gathered.push(action),
        }
    }
    gathered
}
