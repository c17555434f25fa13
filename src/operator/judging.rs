//! What a message asks for, and whether it may; pure. One answer for everybody who asks: the gate, what came too late, and what
//! a kill interrupted.

use super::Book;
use super::guarded::actor;
use crate::command::{Command, Grammar, Mistake, Reading, read};
use crate::message::Message;
use crate::policy::{Order, Refusal, Rules, judge};

/// What a message comes to under the rules.
#[derive(Debug, PartialEq)]
pub(super) enum Judged {
    /// It asks for nothing: people talk.
    Talk,
    /// It was meant as a command and is none; its sender may read why.
    Mistaken(Mistake),
    /// It does not count, or asks for what its sender may not have. `command`: what it would have been.
    Refused { command: Option<Command>, refusal: Refusal },
    /// It is to be carried out.
    Granted { command: Command, orders: Vec<Order> },
}

impl Book {
    /// Reads a message.
    pub(super) fn reading(&self, message: &Message) -> Reading {
        read(&message.text, Grammar { targets: &self.names(), prefix: &self.prefix }, message.address)
    }

    /// Reads a message and judges it.
    pub(super) fn judged(&self, message: &Message) -> Judged {
        judged(message, &self.rules, Grammar { targets: &self.names(), prefix: &self.prefix })
    }
}

fn judged(message: &Message, rules: &Rules, grammar: Grammar<'_>) -> Judged {
    let asks = |command: &Command| judge(rules, &actor(message), &message.standing, command);
    match read(&message.text, grammar, message.address) {
        Reading::Talk => Judged::Talk,
        // To be told of a mistake takes what reading the help takes.
        Reading::Mistake(mistake) => match asks(&Command::Help(None)) {
            Ok(_) => Judged::Mistaken(mistake),
            Err(refusal) => Judged::Refused { command: None, refusal },
        },
        Reading::Command(command) => match asks(&command) {
            Ok(orders) => Judged::Granted { command, orders },
            Err(refusal) => Judged::Refused { command: Some(command), refusal },
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::message::{Address, GUARD, Standing, Why};
    use crate::policy::Bounds;

    fn rules() -> Rules {
        Rules {
            users: BTreeSet::from(["@anna:hs".to_owned()]),
            grants: vec![],
            bounds: vec![Bounds { name: "web".to_owned(), replicas: 1, max_replicas: 3 }],
            staleness: SignedDuration::from_mins(5),
            pins_devices: false,
            guarded: BTreeSet::from(["web".to_owned()]),
        }
    }

    fn said(who: &str, text: &str, address: Address, standing: Standing) -> Judged {
        let message = Message {
            who: who.to_owned(),
            room: "!r".to_owned(),
            event: "$e".to_owned(),
            text: text.to_owned(),
            sent_at: Timestamp::UNIX_EPOCH,
            thread: None,
            device: None,
            standing,
            address,
        };
        judged(&message, &rules(), Grammar { targets: &["web".to_owned()], prefix: "!" })
    }

    #[test]
    fn a_message_comes_to_one_of_four_things() {
        let proven = |who: &str, text: &str| said(who, text, Address::Bare, Standing::Proven);
        let granted = |judged: Judged, word: &str| match judged {
            Judged::Granted { command, orders } => command.verb().word() == word && orders.len() == 1,
            _ => false,
        };
        assert!(granted(proven("@anna:hs", "stop web"), "stop"));
        assert!(granted(proven(GUARD, "stop web"), "stop"));
        assert!(matches!(proven("@anna:hs", "stop wob"), Judged::Mistaken(Mistake::UnknownTarget { .. })));
        assert_eq!(said("@anna:hs", "hello there", Address::Overheard, Standing::Proven), Judged::Talk);

        let refused = |judged: Judged| match judged {
            Judged::Refused { command, refusal } => Some((command.map(|command| command.verb().word()), refusal)),
            _ => None,
        };
        let too_many = Refusal::TooMany { target: "web".to_owned(), max: 3 };
        assert_eq!(refused(proven("@anna:hs", "start web 9")), Some((Some("start"), too_many)));
        assert_eq!(refused(proven("@eve:hs", "stop web")), Some((Some("stop"), Refusal::Stranger)));
        assert_eq!(
            refused(proven("@eve:hs", "stop wob")),
            Some((None, Refusal::Stranger)),
            "nor is a mistake explained"
        );
        let unproven = || Standing::Unproven(Why::Replayed);
        let why = || Refusal::Unproven(Why::Replayed);
        assert_eq!(refused(said("@anna:hs", "stop wob", Address::Bare, unproven())), Some((None, why())));
        assert_eq!(refused(said("@anna:hs", "status", Address::Bare, unproven())), Some((Some("status"), why())));
    }
}
