//! Requests of the usage guard: who they are from, and when what it stopped may be started again.

use super::Operator;
use super::work::Work;
use crate::cluster::{Target, Workload};
use crate::message::{GUARD, Message};
use crate::policy::Actor;
use crate::reply::Change;
use crate::store::StoreError;
use crate::store::inbox::Entry;

/// Orders of a target that are looked at. Between a stop of the guard and its start all of them are its own: tries that
/// failed, and stops by other rules that found nothing to stop, of which a week may have some dozens.
const LOOK_BACK: u32 = 1_000;

/// Says who wants what an entry asks for. The guard's name is no user id, so nobody in a room can bear it.
pub(super) fn actor(message: &Message) -> Actor {
    if message.who == GUARD { Actor::UsageGuard } else { Actor::Person(message.who.clone()) }
}

/// What an answer hangs on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Anchor<'a> {
    /// The event that is answered.
    pub(super) event: Option<&'a str>,
    /// The root of the thread that it stands in.
    pub(super) thread: Option<&'a str>,
}

/// The message that an answer replies to: what the guard wants is no event of the room.
pub(super) fn anchor(message: &Message) -> Anchor<'_> {
    if message.who == GUARD {
        return Anchor::default();
    }
    Anchor { event: Some(&message.event), thread: message.thread.as_deref() }
}

/// Why the guard must not start a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hands {
    /// Somebody has given an order for it, here.
    Ordered(String),
    /// Somebody has changed the workload, elsewhere.
    Changed,
}

impl Operator {
    /// Says whether anybody has had a hand in a target since the guard stopped it. `None`: it is as the guard left it.
    pub(super) async fn hands_since_guard(
        &self,
        entry: &Entry,
        target: &Target,
        workload: &Workload,
    ) -> Result<Option<Hands>, StoreError> {
        let orders = self.store.ordered(&target.key(), Some(entry.id), LOOK_BACK).await?;
        Ok(hands(&orders, workload))
    }
}

/// Judges the orders of a target, newest first, and how the workload is now.
fn hands(orders: &[Entry], workload: &Workload) -> Option<Hands> {
    for entry in orders {
        let Some(work) = Work::of(entry) else { continue };
        if entry.sender != GUARD {
            return Some(Hands::Ordered(entry.sender.clone()));
        }
        if let Change::Scale { from, to: 0 } = work.change
            && from > 0
        {
            let untouched = workload.desired == 0 && work.version.as_ref() == Some(&workload.version);
            return if untouched { None } else { Some(Hands::Changed) };
        }
        // A start of the guard's own that failed, or a stop that changed nothing: the generation tells whether it did.
    }
    Some(Hands::Changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Version;
    use crate::operator::samples::{self, workload};

    fn order(sender: &str, from: i32, to: i32, generation: i64) -> Entry {
        samples::order(sender, (from, to), generation, None)
    }

    #[test]
    fn only_what_is_as_the_guard_left_it_may_be_started() {
        let stop = order(GUARD, 2, 0, 7);
        let anew = Version { uid: "another".to_owned(), ..workload(0, 7).version };
        let anew = Workload { version: anew, ..workload(0, 7) };
        let alice = || Some(Hands::Ordered("@alice:hs".to_owned()));
        // (orders newest first, workload now) -> whose hands
        for (orders, workload, wanted) in [
            (vec![stop.clone()], workload(0, 7), None),
            (vec![stop.clone()], workload(0, 9), Some(Hands::Changed)),
            (vec![stop.clone()], workload(3, 8), Some(Hands::Changed)),
            (vec![stop.clone()], anew, Some(Hands::Changed)),
            (vec![], workload(0, 7), Some(Hands::Changed)),
            (vec![order("@alice:hs", 0, 0, 8), stop.clone()], workload(0, 7), alice()),
            (vec![stop.clone(), order("@alice:hs", 0, 2, 6)], workload(0, 7), None),
            // Its own stop that found nothing to stop, and its own start that failed, change nothing.
            (vec![order(GUARD, 0, 0, 8), stop.clone()], workload(0, 7), None),
            (vec![order(GUARD, 0, 2, 8), stop], workload(0, 7), None),
            (vec![order(GUARD, 0, 0, 8)], workload(0, 7), Some(Hands::Changed)),
        ] {
            assert_eq!(hands(&orders, &workload), wanted, "{orders:#?} {workload:?}");
        }
    }
}
