//! The words of a change: underway, getting there, there, or why not.

use jiff::SignedDuration;

use super::{Change, Text, Words, span};
use crate::cluster::{Cause, ClusterError, Drift, Left, Progress, Target, Trouble};
use crate::command::Verb;

/// What is said beside "stopped" where pods may not be listed and the object does not count those on their way out.
pub(super) const HIDDEN: &str = " (pods that still terminate I may not see)";

pub(super) fn underway(target: &Target, deed: Change, owners: &[String]) -> Words {
    own(doing(Text::new().say("⏳ "), target, deed).say("…"), owners).words()
}

fn doing(text: Text, target: &Target, deed: Change) -> Text {
    let text = text.strong(&target.label);
    match deed {
        Change::Scale { from, to: 0 } => text.say(&format!(": stopping, {from} → 0")),
        Change::Scale { from: 0, to } => text.say(&format!(": starting, 0 → {to}")),
        Change::Scale { from, to } => text.say(&format!(": scaling, {from} → {to}")),
        Change::Restart => text.say(": restarting"),
    }
}

/// Says who else may write the replicas: what was done may not last.
fn own(text: Text, owners: &[String]) -> Text {
    if owners.is_empty() {
        return text;
    }
    text.line().say("⚠️ Its replicas also belong to ").say(&owners.join(", ")).say(", which may change them again.")
}

pub(super) fn already(target: &Target, replicas: i32, ready: i32, left: Left) -> Words {
    let text = Text::new();
    match replicas {
        0 => match left {
            Left::Counted(0) => text.say("⚫ ").strong(&target.label).say(" is already stopped; nothing was changed."),
            Left::AtLeast(0) => text
                .say("⚫ ")
                .strong(&target.label)
                .say(" is already stopped")
                .say(HIDDEN)
                .say("; nothing was changed."),
            left => text
                .say("🟡 ")
                .strong(&target.label)
                .say(" is stopping already; ")
                .say(&pods_left(left.pods()))
                .say("; nothing was changed."),
        },
        n if ready < n => text
            .say("🟡 ")
            .strong(&target.label)
            .say(&format!(" has {n} replicas already, {ready} ready; nothing was changed.")),
        n => text
            .say("🟢 ")
            .strong(&target.label)
            .say(&format!(" runs already, {ready}/{n} ready; nothing was changed.")),
    }
    .words()
}

pub(super) fn words(
    target: &Target,
    deed: Change,
    progress: &Progress,
    after: SignedDuration,
    owners: &[String],
) -> Words {
    let text = Text::new();
    match progress {
        Progress::Waiting { ready, of, troubles } if troubles.is_empty() => {
            let text = doing(text.say("⏳ "), target, deed);
            own(count(text, deed, *ready, *of), owners)
        }
        Progress::Waiting { ready, of, troubles } => {
            let text = doing(text.say("❌ "), target, deed);
            own(causes(count(text, deed, *ready, *of), troubles), owners)
        }
        Progress::Done { ready } => {
            let took = span(after);
            let text = match deed {
                Change::Scale { to: 0, .. } => {
                    text.say("⚫ ").strong(&target.label).say(" is stopped: no pod left, after ").say(&took)
                }
                Change::Scale { to, .. } => {
                    text.say("🟢 ").strong(&target.label).say(&format!(" is ready: {ready}/{to} in ")).say(&took)
                }
                Change::Restart => {
                    text.say("🟢 ").strong(&target.label).say(&format!(" is restarted: {ready} ready in ")).say(&took)
                }
            };
            own(text.say("."), owners)
        }
        Progress::NoneCounted => {
            let text = text.say("⚫ ").strong(&target.label).say(" is stopped: no pod counted any more, after ");
            own(text.say(&span(after)).say(HIDDEN).say("."), owners)
        }
        Progress::Overruled { desired, by } => {
            let text = text.say("⚠️ ").strong(&target.label).say(": somebody else");
            let text = match by {
                Some(by) => text.say(" (").say(by).say(")"),
                None => text,
            };
            own(text.say(&format!(" set {desired} replicas meanwhile; I stopped watching.")), owners)
        }
        Progress::Deleted => text.say("❌ ").strong(&target.label).say(" was deleted meanwhile."),
        Progress::Expired { ready, of, troubles } => {
            let text = text.say("❌ ").strong(&target.label).say(" did not get there in ").say(&span(after));
            let text = count(text, deed, *ready, *of).say(" I stopped watching.");
            causes(text, troubles)
        }
        Progress::Unseen { error } => doing(text.say("❔ "), target, deed)
            .say(". Whether it got there in ")
            .say(&span(after))
            .say(" I cannot see, so nothing is certain: ")
            .say(&why(error))
            .say(". I stopped watching; look at ")
            .code(&format!("status {}", target.name))
            .say("."),
        Progress::Blind { error } => doing(text.say("⏳ "), target, deed)
            .say(". I cannot see how it goes just now: ")
            .say(&error.to_string())
            .say(". I keep looking."),
    }
    .words()
}

fn count(text: Text, deed: Change, ready: i32, of: i32) -> Text {
    match deed {
        // Its controller has not looked yet: that it counts none does not mean that there is none.
        Change::Scale { to: 0, .. } if of == 0 => text.say("."),
        Change::Scale { to: 0, .. } => text.say("; ").say(&pods_left(of)).say("."),
        _ => text.say(&format!("; {ready}/{of} ready.")),
    }
}

/// How many pods are left of what is to have none.
pub(super) fn pods_left(pods: i32) -> String {
    if pods == 1 { "one pod left".to_owned() } else { format!("{pods} pods left") }
}

/// Lists what is wrong, each cause with the cluster's own words.
pub(super) fn causes(mut text: Text, troubles: &[Trouble]) -> Text {
    for trouble in troubles {
        text = text.line().say(cause(trouble.cause)).say(" (").code(&trouble.object).say(")");
        if !trouble.message.is_empty() {
            text = text.say(": ").say(&trouble.message);
        }
        if let Some(log) = &trouble.log {
            text = text.block(log);
        }
    }
    text
}

fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Unschedulable => "No node takes the pod",
        Cause::ImagePull => "The image cannot be pulled",
        Cause::CrashLoop => "The container ends again and again",
        Cause::OutOfMemory => "The container was killed for its memory",
        Cause::ContainerConfig => "Something that the container needs is not there",
        Cause::Quota => "The quota allows no more pods",
        Cause::Evicted => "The node threw the pod out",
        Cause::Failed => "The container failed",
        Cause::Refused => "The pod was refused",
    }
}

pub(super) fn superseded(target: &Target, deed: Change, by: &str, newer: Verb) -> Words {
    doing(Text::new().say("↪️ "), target, deed)
        .say("; then ")
        .say(by)
        .say(" said ")
        .code(newer.word())
        .say(", see there.")
        .words()
}

/// The error without what it leaves open: that is said beside it, or there is nothing of the kind.
fn why(error: &ClusterError) -> String {
    match error {
        ClusterError::Timeout => "the API server did not answer in time".to_owned(),
        error => error.to_string(),
    }
}

pub(super) fn failed(target: &Target, verb: Verb, error: &ClusterError, tried: bool) -> Words {
    if tried && *error == ClusterError::Timeout {
        return Text::new()
            .say("❔ ")
            .strong(&target.label)
            .say(": the API server did not answer the ")
            .say(verb.word())
            .say(" in time, so nothing is certain. Look at ")
            .code(&format!("status {}", target.name))
            .say(".")
            .words();
    }
    let text = Text::new().say("❌ ").strong(&target.label).say(": ").say(verb.word()).say(" failed: ");
    let text = text.say(&why(error)).say(".");
    let text = match error {
        // A connection that broke after the request was sent may have changed something.
        ClusterError::Failed(_) if tried => {
            return text
                .say(" Whether it came through is not certain: look at ")
                .code(&format!("status {}", target.name))
                .say(".")
                .words();
        }
        _ => text.say(" Nothing was changed."),
    };
    match error {
        ClusterError::NotFound(_) => text.say(" Its kind, namespace or name in the configuration may be wrong."),
        ClusterError::Forbidden(_) => text.say(" Whoever runs Pilothouse can add it to its Role."),
        ClusterError::Conflict(_) => text.say(" Say it again."),
        _ => text,
    }
    .words()
}

pub(super) fn drifted(target: &Target, drift: &Drift) -> Words {
    let text = Text::new();
    match drift {
        Drift::Fell { available, desired, troubles } => {
            let text =
                text.say("🔴 ").strong(&target.label).say(&format!(" fell over: {available}/{desired} available."));
            causes(text, troubles)
        }
        Drift::Recovered { available, after } => text
            .say("🟢 ")
            .strong(&target.label)
            .say(&format!(" fell over and is back: {available} available, after "))
            .say(&span(*after))
            .say("."),
        Drift::Scaled { from, to, by } => {
            let text = text.say("ℹ️ ").strong(&target.label).say(&format!(" was scaled {from} → {to} by "));
            text.say(by.as_deref().unwrap_or("somebody else")).say(", not by me.")
        }
        Drift::Deleted => text.say("🔴 ").strong(&target.label).say(" was deleted."),
    }
    .words()
}
