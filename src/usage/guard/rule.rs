//! What a rule looks at, and when it is met. Pure.

use jiff::Timestamp;

use crate::config::{GuardMode, UsageRule};
use crate::usage::bucket::Bucket;
use crate::usage::decide::BucketState;
use crate::usage::forecast::Outlook;

/// A bucket that is so full, or so likely to run out, that targets must be down.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What people read; also the rule's identity over restarts.
    pub name: String,
    /// `kind`, `account/kind` or `account/kind/scope`.
    pub bucket: String,
    /// From so much used on, in per cent.
    pub percent: Option<f64>,
    /// From so likely to run out on.
    pub probability: Option<f64>,
    /// Names of targets.
    pub targets: Vec<String>,
    /// Whether it acts, or only says what it would do.
    pub acts: bool,
}

impl From<&UsageRule> for Rule {
    fn from(rule: &UsageRule) -> Self {
        Self {
            name: rule.name.clone(),
            bucket: rule.bucket.clone(),
            percent: rule.percent,
            probability: rule.probability,
            targets: rule.stop.clone(),
            acts: rule.mode == GuardMode::Act,
        }
    }
}

impl Rule {
    /// Says whether the rule looks at this bucket: what its pattern leaves out may be anything.
    #[must_use]
    pub fn watches(&self, bucket: &Bucket) -> bool {
        let mut parts = self.bucket.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(kind), None, _) => kind == bucket.kind.word(),
            (Some(account), Some(kind), scope) => {
                account == bucket.account
                    && kind == bucket.kind.word()
                    && scope.is_none_or(|scope| bucket.scope.as_deref() == Some(scope))
            }
            (None, ..) => false,
        }
    }

    /// Says whether a bucket is as full, or as likely to run out, as the rule says.
    #[must_use]
    pub fn is_met(&self, view: &View) -> bool {
        self.percent.is_some_and(|percent| view.percent >= percent)
            || self.probability.zip(view.probability).is_some_and(|(least, probability)| probability >= least)
    }
}

/// What is known of one bucket now.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Which one.
    pub bucket: Bucket,
    /// The window that goes on, by its begin: the id of the cycle.
    pub cycle: Timestamp,
    /// Whether it is proven that this window has begun: two samples agree, or it was there from the first.
    pub confirmed: bool,
    /// It began because another account came: no limit was reset.
    pub switched: bool,
    /// Used part of the limit, in per cent.
    pub percent: f64,
    /// How likely it is to run out before the reset, where that is known.
    pub probability: Option<f64>,
    /// When it was so: the freshest sample.
    pub at: Timestamp,
    /// The freshest sample of a source that is asked.
    pub answered_at: Option<Timestamp>,
    /// When a source that is asked last named it, be it in a sample that proves nothing yet.
    pub named_at: Option<Timestamp>,
    /// When the window ends, as announced.
    pub resets_at: Option<Timestamp>,
}

impl View {
    /// Reads it off what was decided of the bucket. `None`: nothing was seen yet.
    #[must_use]
    pub fn of(state: &BucketState, outlook: &Outlook) -> Option<Self> {
        let window = state.window()?;
        let latest = window.latest();
        Some(Self {
            bucket: state.bucket.clone(),
            cycle: window.started_at,
            confirmed: window.confirmed,
            switched: window.switched,
            percent: latest.percent,
            probability: outlook.probability(),
            at: latest.at,
            answered_at: window.proven.map(|point| point.at),
            named_at: state.cycle.as_ref().and_then(|cycle| cycle.heard),
            resets_at: window.ends_at,
        })
    }
}
