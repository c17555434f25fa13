//! The words of `status`.

use jiff::Timestamp;

use super::rollout::{HIDDEN, causes, pods_left};
use super::{Text, Words, span};
use crate::cluster::{ClusterError, Description, Left, RolloutState, Target};

pub(super) fn words(targets: &[(Target, Result<Description, ClusterError>)], now: Timestamp) -> Words {
    let mut text = Text::new();
    let brief = targets.len() > 1;
    for (i, (target, description)) in targets.iter().enumerate() {
        if i > 0 {
            text = text.line();
        }
        text = match description {
            Ok(description) => one(text, target, description, now, brief),
            Err(error) => text.say("❔ ").strong(&target.label).say(": ").say(&error.to_string()).say("."),
        };
    }
    text.words()
}

fn one(text: Text, target: &Target, description: &Description, now: Timestamp, brief: bool) -> Text {
    let workload = &description.workload;
    let (desired, ready, available) = (workload.desired, workload.ready, workload.available);
    let (mark, state) = match () {
        () if desired == 0 && description.left.pods() == 0 => ("⚫ ", "stopped"),
        () if desired == 0 => ("🟡 ", "stopping"),
        () if workload.is_ready() => ("🟢 ", "ready"),
        () if description.troubles.as_ref().is_some_and(|troubles| !troubles.is_empty()) => ("🔴 ", "in trouble"),
        () => ("🟡 ", "getting there"),
    };
    let mut text = text.say(mark).strong(&target.label).say(": ").say(state);
    text = match (desired, description.left) {
        (0, Left::Counted(0)) => text,
        (0, Left::AtLeast(0)) => text.say(HIDDEN),
        (0, left) => text.say("; ").say(&pods_left(left.pods())),
        _ => text.say(&format!(", {ready}/{desired} ready, {available} available")),
    };
    // At zero replicas the condition still tells of the time before.
    if let Some(since) = workload.since.filter(|_| desired > 0) {
        let what = if workload.is_ready() { ", for " } else { ", unavailable for " };
        text = text.say(what).say(&span(now.duration_since(since)));
    }
    if workload.paused {
        text = text.say(", paused");
    }
    if let Some(troubles) = &description.troubles {
        text = causes(text, troubles);
    }
    if brief {
        return text;
    }
    text = match &workload.rollout {
        RolloutState::Complete => text,
        RolloutState::Waiting(why) => text.line().say("Rollout: ").say(why),
        RolloutState::DeadlineExceeded => text.line().say("Rollout: its progress deadline has passed"),
    };
    for image in &workload.images {
        text = text.line().say("Image: ").code(image);
    }
    if let Some(writer) = &workload.scaled_by {
        text = text.line().say("Scaled last by ").say(&writer.manager);
        if let Some(at) = writer.at {
            text = text.say(", ").say(&span(now.duration_since(at))).say(" ago");
        }
    }
    if !description.owners.is_empty() {
        text = text.line().say("⚠️ Its replicas also belong to ").say(&description.owners.join(", "));
    }
    for event in description.events.iter().flatten() {
        text = text.line().say("• ");
        if let Some(at) = event.at {
            text = text.say(&span(now.duration_since(at))).say(" ago: ");
        }
        text = text.say(&event.reason).say(": ").say(&event.note);
    }
    if !description.unseen.is_empty() {
        text = text.line().say("Not seen: ").say(&description.unseen.join("; "));
    }
    text
}
