//! Who may do what: `(Rules, Actor, Standing, Command)` → [`Order`]s or a [`Refusal`]. Pure.
//!
//! Only this module makes an [`Order`] (its parts are private), and only an `Order` moves the cluster or a pin;
//! the pins of the configuration (`trust.pins`) stand above all that.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::command::{Command, Usage, Verb};
use crate::message::{GUARD, Standing, Why};

/// Who wants something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A person in a room, by full user id.
    Person(String),
    /// Whoever has a shell on the machine that Pilothouse runs on.
    Machine,
    /// The guard over the subscription's limits.
    UsageGuard,
}

impl Actor {
    /// Gives the name that history and pins record.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Person(user) => user,
            Self::Machine => "the machine",
            Self::UsageGuard => GUARD,
        }
    }
}

/// What the configuration allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Allowed people.
    pub users: BTreeSet<String>,
    /// Who may do what; without any, every allowed person may do everything.
    pub grants: Vec<Grant>,
    /// The workloads, with their limits.
    pub bounds: Vec<Bounds>,
    /// Older commands are told, not done.
    pub staleness: SignedDuration,
    /// Whether `trust accept` may name a device.
    pub pins_devices: bool,
    /// Targets that the usage guard may stop and start: those that an acting rule of it names.
    pub guarded: BTreeSet<String>,
}

/// These users may use these verbs on these targets; an empty set means any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// User ids.
    pub users: BTreeSet<String>,
    /// Verbs.
    pub verbs: BTreeSet<Verb>,
    /// Names of targets.
    pub targets: BTreeSet<String>,
}

/// The limits of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Name of the target.
    pub name: String,
    /// Replicas of a `start` when nothing is remembered.
    pub replicas: i32,
    /// Most replicas.
    pub max_replicas: i32,
}

impl Rules {
    /// Says whether a command of this time is too old to act on. The time is the homeserver's.
    #[must_use]
    pub fn is_stale(&self, sent_at: Timestamp, now: Timestamp) -> bool {
        now.duration_since(sent_at) > self.staleness
    }

    /// What the guard may, `guard_may` says.
    fn allows(&self, actor: &Actor, verb: Verb, target: Option<&str>) -> bool {
        let Actor::Person(user) = actor else { return true };
        self.grants.is_empty()
            || self.grants.iter().any(|grant| {
                (grant.users.is_empty() || grant.users.contains(user))
                    && (grant.verbs.is_empty() || grant.verbs.contains(&verb))
                    && target.is_none_or(|target| grant.targets.is_empty() || grant.targets.contains(target))
            })
    }
}

/// Something granted. Its parts can be read but not made outside this module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Give a target so many replicas.
    Scale(Scale),
    /// Replace a target's pods.
    Restart(Restart),
    /// Trust another key of a person.
    Repin(Repin),
    /// Silence alerts of the subscription.
    Mute(Mute),
    /// Say something.
    Tell(Tell),
}

/// See [`Order::Scale`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    target: String,
    replicas: Replicas,
}

/// How many replicas an order asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replicas {
    /// None.
    Zero,
    /// So many.
    Exactly(i32),
    /// What the last `stop` took away, else the configured number; nothing where the target runs.
    Remembered {
        /// The configured number.
        configured: i32,
        /// Most replicas: what is remembered from before the limit was lowered is cut to it.
        max: i32,
    },
}

impl Scale {
    /// Name of the target.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Makes the order absolute; `None` where nothing has to change.
    #[must_use]
    pub fn resolve(&self, desired: i32, remembered: Option<i32>) -> Option<i32> {
        let wanted = match self.replicas {
            Replicas::Zero => 0,
            Replicas::Exactly(replicas) => replicas,
            Replicas::Remembered { .. } if desired > 0 => desired,
            Replicas::Remembered { configured, max } => remembered.unwrap_or(configured).min(max),
        };
        (wanted != desired).then_some(wanted)
    }
}

/// See [`Order::Restart`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    target: String,
}

impl Restart {
    /// Name of the target.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }
}

/// See [`Order::Repin`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repin {
    user: String,
    device: Option<String>,
    fingerprint: String,
    by: String,
}

impl Repin {
    /// Whose key.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The device, if it is a device's key.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// The key that was compared.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Who accepted it.
    #[must_use]
    pub fn by(&self) -> &str {
        &self.by
    }
}

/// See [`Order::Mute`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mute {
    span: SignedDuration,
}

impl Mute {
    /// For how long; zero takes a silence back.
    #[must_use]
    pub fn span(&self) -> SignedDuration {
        self.span
    }
}

/// See [`Order::Tell`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tell {
    topic: Topic,
}

impl Tell {
    /// What to speak about.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }
}

/// What somebody may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// The commands that this person may use, or one of them.
    Help {
        /// The one, or all of `offered`.
        about: Option<Verb>,
        /// What this person may use.
        offered: Vec<Verb>,
        /// On these targets.
        targets: Vec<String>,
    },
    /// Workloads.
    Status(Vec<String>),
    /// Who did what, and who tried.
    History {
        /// On these targets.
        targets: Vec<String>,
        /// And by these commands, where they are about no target: keys that were accepted, alerts that were muted.
        verbs: Vec<Verb>,
    },
    /// The subscription.
    Usage(Usage),
    /// People and devices.
    Trust,
    /// The version.
    Version,
}

/// Why somebody may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not an allowed person: silence.
    Stranger,
    /// The message is not proven to be this person's.
    Unproven(Why),
    /// No rule lets this person use this verb on this target.
    NotAllowed {
        /// The verb.
        verb: Verb,
        /// The target, if the command has one.
        target: Option<String>,
    },
    /// More replicas than the configuration allows.
    TooMany {
        /// The target.
        target: String,
        /// Its limit.
        max: i32,
    },
    /// `start x 0`: that is what `stop` is for, and what is remembered would be lost.
    StartZero,
    /// Nobody vouches for their own changed key.
    OwnKey,
    /// `trust accept` for somebody who is not allowed anyway.
    NotAPerson(String),
    /// `trust accept @user device …` where devices are not pinned.
    DevicesNotPinned,
    /// No acting rule of the usage guard names the target.
    Unguarded {
        /// What the guard wanted.
        verb: Verb,
        /// The target, if there is one.
        target: Option<String>,
    },
    /// `trust accept` from where nothing is proven: the pin would count where something is.
    PinNeedsProof,
}

impl Refusal {
    /// Gives a short key: the same refusal is told once in ten minutes.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Stranger => "stranger".to_owned(),
            Self::Unproven(why) => format!("unproven {why:?}"),
            Self::NotAllowed { verb, target } => format!("not-allowed {verb} {}", target.as_deref().unwrap_or("")),
            Self::TooMany { target, max } => format!("too-many {target} {max}"),
            Self::StartZero => "start-zero".to_owned(),
            Self::OwnKey => "own-key".to_owned(),
            Self::NotAPerson(user) => format!("not-a-person {user}"),
            Self::DevicesNotPinned => "devices-not-pinned".to_owned(),
            Self::Unguarded { verb, target } => format!("unguarded {verb} {}", target.as_deref().unwrap_or("")),
            Self::PinNeedsProof => "pin-needs-proof".to_owned(),
        }
    }
}

/// Judges a command: every order that it stands for, or why not.
///
/// # Errors
/// The first [`Refusal`] that applies. `all` means all that the actor may touch.
pub fn judge(rules: &Rules, actor: &Actor, standing: &Standing, command: &Command) -> Result<Vec<Order>, Refusal> {
    let person = match actor {
        Actor::Machine | Actor::UsageGuard => None,
        Actor::Person(user) if !rules.users.contains(user) => return Err(Refusal::Stranger),
        Actor::Person(user) => Some(user.as_str()),
    };
    if let Standing::Unproven(why) = standing {
        return Err(Refusal::Unproven(why.clone()));
    }
    if *actor == Actor::UsageGuard {
        guard_may(rules, command)?;
    }
    let allows = |verb, target: Option<&str>| rules.allows(actor, verb, target);
    let verb = command.verb();
    let not_allowed = |target: Option<&str>| Refusal::NotAllowed { verb, target: target.map(str::to_owned) };
    let visible = |verb| -> Vec<String> {
        rules
            .bounds
            .iter()
            .filter(|bounds| allows(verb, Some(&bounds.name)))
            .map(|bounds| bounds.name.clone())
            .collect()
    };
    let tell = |topic| Ok(vec![Order::Tell(Tell { topic })]);
    match command {
        Command::Help(about) => {
            let offered = Verb::ALL.into_iter().filter(|&verb| allows(verb, None)).collect();
            tell(Topic::Help { about: *about, offered, targets: known(rules, actor) })
        }
        _ if !allows(verb, None) => Err(not_allowed(None)),
        Command::Status(named) => tell(Topic::Status(readable(named, verb, &visible, &allows)?)),
        Command::History(named) => {
            let targets = readable(named.as_slice(), verb, &visible, &allows)?;
            let beside = [Verb::Trust, Verb::Usage].into_iter().filter(|&verb| named.is_none() && allows(verb, None));
            tell(Topic::History { targets, verbs: beside.collect() })
        }
        Command::Usage(Usage::Mute(span)) => Ok(vec![Order::Mute(Mute { span: *span })]),
        Command::Usage(usage) => tell(Topic::Usage(*usage)),
        Command::Trust => tell(Topic::Trust),
        Command::Version => tell(Topic::Version),
        Command::Start { targets, replicas, all } => {
            each(rules, targets, *all, verb, &allows, |bounds| match replicas {
                Some(0) => Err(Refusal::StartZero),
                None => Ok(Order::Scale(Scale {
                    target: bounds.name.clone(),
                    replicas: Replicas::Remembered { configured: bounds.replicas, max: bounds.max_replicas },
                })),
                Some(replicas) => match i32::try_from(*replicas) {
                    Ok(replicas) if replicas <= bounds.max_replicas => {
                        Ok(Order::Scale(Scale { target: bounds.name.clone(), replicas: Replicas::Exactly(replicas) }))
                    }
                    _ => Err(Refusal::TooMany { target: bounds.name.clone(), max: bounds.max_replicas }),
                },
            })
        }
        Command::Stop { targets, all } => each(rules, targets, *all, verb, &allows, |bounds| {
            Ok(Order::Scale(Scale { target: bounds.name.clone(), replicas: Replicas::Zero }))
        }),
        Command::Restart { targets, all } => each(rules, targets, *all, verb, &allows, |bounds| {
            Ok(Order::Restart(Restart { target: bounds.name.clone() }))
        }),
        Command::Accept { user, device, fingerprint } => {
            if person.is_some() && *standing != Standing::Proven {
                return Err(Refusal::PinNeedsProof);
            }
            if person == Some(user) {
                return Err(Refusal::OwnKey);
            }
            if !rules.users.contains(user) {
                return Err(Refusal::NotAPerson(user.clone()));
            }
            if device.is_some() && !rules.pins_devices {
                return Err(Refusal::DevicesNotPinned);
            }
            Ok(vec![Order::Repin(Repin {
                user: user.clone(),
                device: device.clone(),
                fingerprint: fingerprint.clone(),
                by: actor.name().to_owned(),
            })])
        }
    }
}

/// The targets of which somebody may do or see anything: the names that they are told.
#[must_use]
pub fn known(rules: &Rules, actor: &Actor) -> Vec<String> {
    const OF_TARGETS: [Verb; 5] = [Verb::Start, Verb::Stop, Verb::Restart, Verb::Status, Verb::History];
    let is_known = |name: &str| OF_TARGETS.into_iter().any(|verb| rules.allows(actor, verb, Some(name)));
    rules.bounds.iter().map(|bounds| bounds.name.clone()).filter(|name| is_known(name)).collect()
}

/// The guard may stop and start what its acting rules name, and nothing else: no number, no `all`, no question.
fn guard_may(rules: &Rules, command: &Command) -> Result<(), Refusal> {
    let refusal = |target: Option<&String>| Refusal::Unguarded { verb: command.verb(), target: target.cloned() };
    match command {
        Command::Start { targets, replicas: None, all: false } | Command::Stop { targets, all: false } => targets
            .iter()
            .find(|target| !rules.guarded.contains(*target))
            .map_or(Ok(()), |other| Err(refusal(Some(other)))),
        command => Err(refusal(command.targets().first())),
    }
}

fn readable(
    named: impl IntoIterator<Item = impl AsRef<str>>,
    verb: Verb,
    visible: &impl Fn(Verb) -> Vec<String>,
    allows: &impl Fn(Verb, Option<&str>) -> bool,
) -> Result<Vec<String>, Refusal> {
    let mut targets = Vec::new();
    for name in named {
        let name = name.as_ref();
        if !allows(verb, Some(name)) {
            return Err(Refusal::NotAllowed { verb, target: Some(name.to_owned()) });
        }
        targets.push(name.to_owned());
    }
    Ok(if targets.is_empty() { visible(verb) } else { targets })
}

/// Makes an order for each target: all or nothing where they were named, what is allowed where `all` was.
fn each(
    rules: &Rules,
    targets: &[String],
    all: bool,
    verb: Verb,
    allows: &impl Fn(Verb, Option<&str>) -> bool,
    order: impl Fn(&Bounds) -> Result<Order, Refusal>,
) -> Result<Vec<Order>, Refusal> {
    let mut orders = Vec::new();
    for name in targets {
        let refusal = || Refusal::NotAllowed { verb, target: Some(name.clone()) };
        let Some(bounds) = rules.bounds.iter().find(|bounds| bounds.name == *name) else { return Err(refusal()) };
        if allows(verb, Some(name)) {
            orders.push(order(bounds)?);
        } else if !all {
            return Err(refusal());
        }
    }
    if orders.is_empty() { Err(Refusal::NotAllowed { verb, target: None }) } else { Ok(orders) }
}

#[cfg(test)]
mod tests;
