//! What the guard remembers of one rule and one target, and how samples and people change it. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::deed::{Course, Past, Will};
use super::rule::{Rule, View};

/// Event ids of the guard's rows in the inbox begin so; those of Matrix begin with `$`.
pub const EVENT_PREFIX: &str = "guard/";

/// Which rule, for which target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Name of the rule.
    pub rule: String,
    /// Name of the target.
    pub target: String,
}

/// What one rule wants of one target: kept as JSON in the store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What was seen of each bucket that the rule watches, by the bucket's key.
    pub claims: BTreeMap<String, Claim>,
    /// The last stop that was asked for: what others did is counted from its row on.
    pub stop: Option<Asked>,
    /// The stop that took the replicas away, until somebody else has a hand in it.
    pub own: Option<Asked>,
    /// The start that was asked for.
    pub start: Option<Asked>,
    /// The stop that a rule which only observes would have asked for.
    pub would: Option<Asked>,
    /// The bucket that held the target and whose reset was proven last: that is what gives it back.
    pub freed: Option<String>,
    /// It was told what keeps the target down, though the bucket of `own` holds it no more.
    pub kept: bool,
    /// Silences that were told: of an account or a bucket, since the time of the last sample.
    pub silences: BTreeMap<String, Timestamp>,
}

/// How one bucket stands to the rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// The first of the samples in a row that met the rule.
    pub met: Option<Met>,
    /// The target must be down, since it was met twice in this cycle.
    pub held: Option<Timestamp>,
    /// A person has overridden it in this cycle.
    pub rests: Option<Timestamp>,
    /// A stop was asked for, or told, in this cycle.
    pub asked: Option<Timestamp>,
}

/// A sample that met a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Met {
    /// In this cycle.
    pub cycle: Timestamp,
    /// When the sample was taken.
    pub at: Timestamp,
}

/// A request that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Because of this bucket,
    pub bucket: String,
    /// in this cycle of it.
    pub cycle: Timestamp,
    /// Earlier tries that failed.
    pub attempt: u32,
    /// When.
    pub at: Timestamp,
    /// What came of it is known and was taken into account.
    pub settled: bool,
}

impl Asked {
    pub(super) fn first(bucket: &str, cycle: Timestamp, at: Timestamp) -> Self {
        Self { bucket: bucket.to_owned(), cycle, attempt: 0, at, settled: false }
    }

    pub(super) fn again(&self, at: Timestamp) -> Self {
        Self { attempt: self.attempt + 1, at, settled: false, ..self.clone() }
    }

    /// Whether both stand for the same cycle of the same bucket.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        (&self.bucket, self.cycle) == (&other.bucket, other.cycle)
    }

    /// The event id of its row: made from nothing but what it is, so that the same request is the same row.
    pub(super) fn event(&self, key: &Key, will: Will) -> String {
        let cycle = self.cycle.as_millisecond().to_string();
        let attempt = self.attempt.to_string();
        let words = [&key.rule, &self.bucket, &cycle, will.word(), &key.target, &attempt];
        format!("{EVENT_PREFIX}{}", digest(&words))
    }
}

/// What one look at the buckets changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Buckets that hold the target, and for which nothing was asked yet in this cycle.
    pub(super) due: Vec<String>,
    /// Buckets that held it, and behind which another account is now.
    pub(super) switched: Vec<String>,
}

/// What people did to the guard's work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meddled {
    /// Somebody started what these buckets hold.
    Overridden { who: String, claims: Vec<(String, Timestamp)> },
    /// Somebody stopped what the guard had stopped.
    HandedOver { who: String, own: Asked },
}

impl State {
    /// The event id of the last stop.
    #[must_use]
    pub fn stop_event(&self, key: &Key) -> Option<String> {
        self.stop.as_ref().map(|asked| asked.event(key, Will::Stop))
    }

    /// The event id of the last start.
    #[must_use]
    pub fn start_event(&self, key: &Key) -> Option<String> {
        self.start.as_ref().map(|asked| asked.event(key, Will::Start))
    }

    /// Says whether the target must be down, whoever holds it down.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.claims.values().any(|claim| claim.held.is_some())
    }

    /// The buckets that hold the target.
    pub(super) fn holding(&self) -> impl Iterator<Item = &String> {
        self.claims.iter().filter(|(_, claim)| claim.held.is_some()).map(|(bucket, _)| bucket)
    }

    /// Says whether a bucket of this account holds the target.
    pub(super) fn holds_for(&self, account: &str) -> bool {
        self.holding().any(|bucket| account_of(bucket) == account)
    }

    /// The stop that took the replicas away, where the bucket for which it was made has let go since.
    pub(super) fn outlived(&self) -> Option<&Asked> {
        self.own.as_ref().filter(|own| self.holding().all(|bucket| *bucket != own.bucket))
    }

    fn rests(&self) -> bool {
        self.claims.values().any(|claim| claim.rests.is_some())
    }

    /// Forgets a stop that holds nothing any more and gives nothing back, and what is known of one.
    pub(super) fn forget(&mut self) {
        self.kept &= self.outlived().is_some();
        self.freed.take_if(|_| self.own.is_none() && self.would.is_none());
        let is_over = !self.holds() && !self.rests() && self.own.is_none() && self.start.is_none();
        self.stop.take_if(|stop| is_over && stop.settled);
    }

    /// Drops the claims of buckets that are gone; gives those that held the target.
    pub(super) fn drop_held(&mut self, is_gone: impl Fn(&str) -> bool) -> Vec<String> {
        let gone: Vec<String> = self.claims.keys().filter(|bucket| is_gone(bucket)).cloned().collect();
        gone.into_iter().filter(|bucket| self.claims.remove(bucket).is_some_and(|claim| claim.held.is_some())).collect()
    }

    /// Lets the target go without a start. Gives the stop that took its replicas away, or may yet.
    pub(super) fn let_go(&mut self) -> Option<Asked> {
        let under_way = self.stop.take().filter(|stop| !stop.settled);
        (self.start, self.would) = (None, None);
        self.own.take().or(under_way)
    }

    /// Learns how the own requests went.
    pub(super) fn learn(&mut self, past: &Past) {
        if matches!(past.start, Some(Course::Moved | Course::Unmoved | Course::Void))
            && let Some(start) = self.start.take()
        {
            self.own.take_if(|own| own.is_of(&start));
        }
        if let (Some(stop), Some(course)) = (&mut self.stop, past.stop)
            && !stop.settled
        {
            stop.settled = course != Course::Open;
            // What was ordered and failed may have happened: whether it did, the operator sees before it starts anything.
            if matches!(course, Course::Moved | Course::Failed { ordered: true }) {
                self.start.take_if(|start| !start.is_of(stop));
                (self.own, self.freed, self.kept) = (Some(stop.clone()), None, false);
            }
        }
    }

    /// Takes note of what people did since the last stop. Again is the same as once.
    pub(super) fn yield_to(&mut self, past: &Past) -> Vec<Meddled> {
        let mut told = Vec::new();
        for deed in &past.since {
            let own = self.own.take();
            self.start = None;
            let who = deed.who.clone();
            match (deed.will, own) {
                (Will::Stop, Some(own)) => told.push(Meddled::HandedOver { who, own }),
                (Will::Stop, None) => {}
                (Will::Start, _) => {
                    let mut claims = Vec::new();
                    for (bucket, claim) in &mut self.claims {
                        if let Some(cycle) = claim.held.take() {
                            claim.rests = Some(cycle);
                            claims.push((bucket.clone(), cycle));
                        }
                    }
                    if !claims.is_empty() {
                        told.push(Meddled::Overridden { who, claims });
                    }
                }
            }
        }
        told
    }

    /// Looks at the buckets of which fresh data is there.
    /// Of accounts that nobody `is_asked` for no reset is ever proven.
    pub(super) fn see(&mut self, rule: &Rule, fresh: &[&View], is_asked: impl Fn(&str) -> bool) -> Seen {
        let mut seen = Seen::default();
        for view in fresh {
            let claim = self.claims.entry(view.bucket.to_string()).or_default();
            match (claim.see(view, rule.is_met(view), is_asked(&view.bucket.account)), view.switched) {
                (true, true) => seen.switched.push(view.bucket.to_string()),
                (true, false) => self.freed = Some(view.bucket.to_string()),
                (false, _) => {}
            }
        }
        // A person has overridden the rule, not one of its buckets: it rests until that one's reset.
        let rests = self.rests();
        for view in fresh {
            let bucket = view.bucket.to_string();
            let Some(claim) = self.claims.get_mut(&bucket) else { continue };
            if !rests && claim.is_met_twice(view) {
                claim.held = Some(view.cycle);
            }
            if claim.held.is_some() && claim.asked != claim.held {
                seen.due.push(bucket);
            }
        }
        self.claims.retain(|_, claim| claim.is_of_use());
        seen
    }
}

impl Claim {
    /// Looks at the bucket; gives whether it held the target and the window in which it did is proven to be over.
    fn see(&mut self, view: &View, is_met: bool, is_asked: bool) -> bool {
        let is_over = |cycle: &mut Timestamp| view.confirmed && *cycle != view.cycle;
        // An override ends without proof where there is none to come: that starts nothing, the rule only looks again.
        self.rests.take_if(|cycle| is_over(cycle) || !is_asked && *cycle != view.cycle);
        self.met = match self.met {
            _ if !is_met => None,
            Some(met) if met.cycle == view.cycle && met.at <= view.at => Some(met),
            _ => Some(Met { cycle: view.cycle, at: view.at }),
        };
        !is_met && self.held.take_if(is_over).is_some()
    }

    fn is_met_twice(&self, view: &View) -> bool {
        self.met.is_some_and(|met| met.cycle == view.cycle && met.at < view.at)
    }

    fn is_of_use(&self) -> bool {
        self.met.is_some() || self.held.is_some() || self.rests.is_some()
    }
}

/// The account of a bucket's key, which an account's own name is, too.
pub(super) fn account_of(bucket: &str) -> &str {
    bucket.split('/').next().unwrap_or(bucket)
}

/// A short name for a list of words that no other list has.
pub(super) fn digest(words: &[&str]) -> String {
    let mut hash = Sha256::new();
    for word in words {
        hash.update(word.len().to_le_bytes());
        hash.update(word);
    }
    hash.finalize().iter().take(16).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever only pushes never proves a reset: a person's override would hold for ever.
    #[test]
    fn an_override_ends_with_its_window_proven_or_not_where_nobody_can_prove_it() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let view = |confirmed| View {
            bucket: "desk/weekly_all".parse().unwrap(),
            cycle: at(100),
            confirmed,
            switched: false,
            percent: 10.0,
            probability: None,
            at: at(200),
            answered_at: None,
            named_at: None,
            resets_at: None,
        };
        for (is_asked, confirmed, rests) in [(true, false, true), (true, true, false), (false, false, false)] {
            let mut claim = Claim { rests: Some(at(0)), ..Claim::default() };
            claim.see(&view(confirmed), false, is_asked);
            assert_eq!(claim.rests.is_some(), rests, "asked: {is_asked}, confirmed: {confirmed}");
            let mut same = Claim { rests: Some(at(100)), ..Claim::default() };
            same.see(&view(confirmed), false, is_asked);
            assert!(same.rests.is_some(), "its window goes on");
        }
    }
}
