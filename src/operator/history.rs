//! `history`: who did what, and who tried. The journal is read here; which of it is told is decided by pure functions.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::gate::message;
use super::{Book, Operator};
use crate::command::{Command, Reading, Verb};
use crate::policy::Actor;
use crate::reply::{Deed, Report};
use crate::store::inbox::Entry;
use crate::store::pins::{By, Keys, Pin};
use crate::store::{StoreError, outcome};

/// Lines of `history`.
const LINES: u32 = 10;
/// Most of them that may tell what was not done: however often somebody tries, what was done stays in sight.
const ATTEMPTS: usize = 5;
/// Commands that moved no target and are looked at for these lines.
const LOOK_BACK: u32 = 256;

/// A line, and its place among the others: when it arrived, by the own clock, and the row of the inbox.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    place: (Timestamp, i64),
    deed: Deed,
}

impl Operator {
    /// What became of commands for these targets; and of those without a target that begin with one of these verbs.
    pub(super) async fn history(&self, targets: &[String], verbs: &[Verb], book: &Book) -> Result<Report, StoreError> {
        let mut done = Vec::new();
        for target in targets.iter().filter_map(|name| book.target(name)) {
            let moved = self.store.history(Some(target.key()), LINES).await?;
            done.extend(moved.iter().filter_map(line));
        }
        // Each by itself: however much is refused, what was done stays in sight.
        let about = |entry: &Entry| attempt(entry, targets, verbs, book);
        done.extend(self.store.unmoved(LOOK_BACK).await?.iter().filter_map(about));
        let tried = self.store.undone(LOOK_BACK).await?.iter().filter_map(about).collect();
        if verbs.contains(&Verb::Trust) {
            done.extend(self.accepted_by_the_machine(book).await?);
        }
        Ok(Report::History { deeds: chosen(done, tried), zone: book.usage.zone.clone() })
    }

    /// Keys that were accepted on the machine are in no inbox: of each person and device the last is known by its pin.
    async fn accepted_by_the_machine(&self, book: &Book) -> Result<Vec<Line>, StoreError> {
        let mut lines = Vec::new();
        for user in &book.rules.users {
            lines.extend(accepted_on_the_machine(user, &self.store.keys(user).await?));
        }
        Ok(lines)
    }
}

fn accepted_on_the_machine(user: &str, keys: &Keys) -> Vec<Line> {
    let identity = keys.pin.iter().map(|pin| (user.to_owned(), pin));
    let devices = keys.device_pins.iter().map(|(device, pin)| (format!("{user} {device}"), pin));
    let by_the_machine = |pin: &Pin| matches!(&pin.by, By::Accepted(who) if who == Actor::Machine.name());
    let accepted = identity.chain(devices).filter(|(_, pin)| by_the_machine(pin));
    let lines = accepted.map(|(whose, pin)| Line {
        place: (pin.since, i64::MAX),
        deed: Deed {
            at: pin.since,
            who: Actor::Machine.name().to_owned(),
            text: format!("trust accept {whose}"),
            outcome: outcome::accepted(&pin.key),
            times: 1,
        },
    });
    lines.collect()
}

/// The line of a command that moved no target, where it belongs here, as the configuration reads it today. What only reads
/// does not.
fn attempt(entry: &Entry, targets: &[String], verbs: &[Verb], book: &Book) -> Option<Line> {
    let Reading::Command(command) = book.reading(&message(entry)?) else { return None };
    if !command.changes() || !concerns(&command, targets, verbs) {
        return None;
    }
    let mut line = line(entry)?;
    if let Some(text) = shortened(&command, targets) {
        line.deed.text = text;
    }
    Some(line)
}

/// What is told of a command that names other targets, too: whoever reads may not be allowed to know them.
fn shortened(command: &Command, targets: &[String]) -> Option<String> {
    let (shown, others): (Vec<&str>, Vec<&str>) =
        command.targets().iter().map(String::as_str).partition(|name| targets.iter().any(|target| target == name));
    (!others.is_empty()).then(|| format!("{} {} …", command.verb().word(), shown.join(" ")))
}

fn concerns(command: &Command, targets: &[String], verbs: &[Verb]) -> bool {
    match command.targets() {
        [] => verbs.contains(&command.verb()),
        named => named.iter().any(|name| targets.contains(name)),
    }
}

fn line(entry: &Entry) -> Option<Line> {
    let message = message(entry)?;
    let deed = Deed {
        at: entry.sent_at,
        who: message.who,
        text: message.text,
        outcome: entry.outcome.clone().unwrap_or_else(|| "underway".to_owned()),
        times: 1,
    };
    Some(Line { place: (entry.received_at, entry.id), deed })
}

/// Chooses the lines, newest first. What the same person tried again with the same end is one line.
fn chosen(done: Vec<Line>, mut tried: Vec<Line>) -> Vec<Deed> {
    tried.sort_by_key(|line| Reverse(line.place));
    let mut attempts: Vec<Line> = Vec::new();
    for line in tried {
        let same = |one: &&mut Line| {
            (&one.deed.who, &one.deed.text, &one.deed.outcome) == (&line.deed.who, &line.deed.text, &line.deed.outcome)
        };
        match attempts.iter_mut().find(same) {
            Some(newest) => newest.deed.times += 1,
            None => attempts.push(line),
        }
    }
    attempts.truncate(ATTEMPTS);
    let mut lines = done;
    lines.extend(attempts);
    lines.sort_by_key(|line| Reverse(line.place));
    lines.truncate(LINES as usize);
    lines.into_iter().map(|line| line.deed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: i64, who: &str, text: &str, outcome: &str) -> Line {
        let at = Timestamp::from_second(second).unwrap();
        let (who, text, outcome) = (who.to_owned(), text.to_owned(), outcome.to_owned());
        Line { place: (at, second), deed: Deed { at, who, text, outcome, times: 1 } }
    }

    fn told_of(deeds: &[Deed]) -> Vec<String> {
        deeds.iter().map(|deed| format!("{} {} ×{}", deed.who, deed.text, deed.times)).collect()
    }

    #[test]
    fn what_was_done_and_what_was_refused_stand_in_the_order_of_their_arrival() {
        let done = vec![line(1, "alice", "start web", "scaled 0 → 1"), line(3, "alice", "stop web", "scaled 1 → 0")];
        let tried = vec![line(2, "bob", "stop web", "refused: not allowed")];
        assert_eq!(told_of(&chosen(done, tried)), ["alice stop web ×1", "bob stop web ×1", "alice start web ×1"]);
    }

    #[test]
    fn keys_that_were_accepted_on_the_machine_are_told_each() {
        let pin =
            |second, by: By| Pin { key: format!("key{second}"), since: Timestamp::from_second(second).unwrap(), by };
        let machine = || By::Accepted(Actor::Machine.name().to_owned());
        let devices = [
            ("PHONE", pin(1, By::FirstContact)),
            ("LAPTOP", pin(3, machine())),
            ("TABLET", pin(4, By::Accepted("@bob:hs".to_owned()))),
        ];
        let keys = Keys {
            pin: Some(pin(2, machine())),
            device_pins: devices.map(|(device, pin)| (device.to_owned(), pin)).into(),
            ..Keys::default()
        };
        let lines = accepted_on_the_machine("@anna:hs", &keys);
        let told = ["the machine trust accept @anna:hs LAPTOP ×1", "the machine trust accept @anna:hs ×1"];
        assert_eq!(told_of(&chosen(lines, Vec::new())), told);
    }

    #[test]
    fn the_same_attempt_is_one_line_with_its_newest_time() {
        let refused = |second, who, why| line(second, who, "stop web", why);
        let tried = vec![
            refused(1, "bob", "refused: not allowed"),
            refused(2, "bob", "refused: not allowed"),
            refused(3, "eve", "refused: not allowed"),
            refused(4, "bob", "refused: replayed"),
            refused(5, "bob", "refused: not allowed"),
        ];
        let lines = chosen(Vec::new(), tried);
        assert_eq!(told_of(&lines), ["bob stop web ×3", "bob stop web ×1", "eve stop web ×1"]);
        assert_eq!(lines[0].at, Timestamp::from_second(5).unwrap());
    }

    #[test]
    fn however_much_is_tried_what_was_done_stays_in_sight() {
        let done = (0..20).map(|second| line(second, "alice", "start web", "scaled 0 → 1")).collect();
        let tried = (100..200).map(|n| line(n, "eve", &format!("start web {n}"), "refused: not verified")).collect();
        let lines = chosen(done, tried);
        assert_eq!(lines.len(), LINES as usize);
        assert_eq!(lines.iter().filter(|deed| deed.who == "eve").count(), ATTEMPTS);
        assert_eq!(lines[ATTEMPTS].at, Timestamp::from_second(19).unwrap());
    }

    #[test]
    fn a_history_is_of_the_targets_that_it_names() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let stop = |targets: &[&str]| Command::Stop { targets: names(targets), all: false };
        let accept = Command::Accept { user: "@bob:hs".to_owned(), device: None, fingerprint: "key".to_owned() };
        assert!(concerns(&stop(&["web", "db"]), &names(&["db"]), &[]));
        assert!(!concerns(&stop(&["web"]), &names(&["db"]), &[Verb::Stop]));
        assert_eq!(shortened(&stop(&["web", "db"]), &names(&["db"])).as_deref(), Some("stop db …"));
        assert_eq!(shortened(&stop(&["web", "db"]), &names(&["db", "web", "llama"])), None);
        assert!(!concerns(&accept, &names(&["db"]), &[]));
        assert!(concerns(&accept, &names(&["db"]), &[Verb::Trust]));
    }
}
