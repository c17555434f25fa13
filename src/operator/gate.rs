//! From a message to what is done about it.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::guarded::{Anchor, actor, anchor};
use super::judging::Judged;
use super::{Book, Operator, now};
use crate::chat::{self, Gesture, LAST_ROOM};
use crate::cluster::Target;
use crate::command::{Command, Reading, Usage};
use crate::message::{Address, Message, Outgoing, Why};
use crate::policy::{Actor, Order, Refusal, Topic, known};
use crate::reply::{self, Report};
use crate::store::inbox::Entry;
use crate::store::orders::Done;
use crate::store::outbox::{Draft, Speech};
use crate::store::{StoreError, outcome};

/// Work that is done within this time needs no sign of life: it would only delay the answer.
const TYPING_PAUSE: std::time::Duration = std::time::Duration::from_millis(300);
/// A sign of life lasts a few seconds: it is given again this often while the work does.
const TYPING_AGAIN: std::time::Duration = std::time::Duration::from_secs(3);
/// The same refusal is told to the same person once in this time.
const REFUSAL_PAUSE: SignedDuration = SignedDuration::from_mins(10);

pub(super) fn message(entry: &Entry) -> Option<Message> {
    serde_json::from_str(&entry.payload)
        .inspect_err(|error| tracing::error!(id = entry.id, %error, "an inbox entry cannot be read"))
        .ok()
}

/// What the first words of an answer are for: their part of the transaction id.
const ANSWER: &str = "answer";

/// Makes a transaction id that no other event, purpose or store shares.
pub(super) fn txn(event: &str, purpose: &str) -> String {
    let digest = Sha256::new().chain_update(event).chain_update([0]).chain_update(purpose).finalize();
    digest.iter().take(16).fold("ph".to_owned(), |txn, byte| format!("{txn}{byte:02x}"))
}

pub(super) fn outgoing(report: &Report, on: Anchor<'_>) -> String {
    speech(report, on).json()
}

/// What a report comes to in the room.
pub(super) fn speech(report: &Report, on: Anchor<'_>) -> Outgoing {
    let words = reply::words(report);
    // Why a plaintext room does not do is told in that very room.
    let anywhere = matches!(report, Report::Refused { refusal: Refusal::Unproven(Why::PlaintextRoom), .. });
    let (reply_to, thread) = (on.event.map(str::to_owned), on.thread.map(str::to_owned));
    Outgoing { reply_to, thread, anywhere, ..Outgoing::new(words.plain, words.html) }
}

/// The first words of an answer.
pub(super) fn draft(entry: &Entry, message: &Message, report: &Report) -> Draft {
    draft_for(entry, message, ANSWER, report)
}

/// As [`draft`], under a transaction id of its own. That of an answer is the same each time, so that it is not said twice after
/// a power cut; words that must be read even where the answer is in the room already need another.
fn draft_for(entry: &Entry, message: &Message, purpose: &str, report: &Report) -> Draft {
    Draft { txn: txn(&entry.event, purpose), room: entry.room.clone(), payload: outgoing(report, anchor(message)) }
}

/// New words for the message of that row; where there is none, the answer itself.
pub(super) fn revise(entry: &Entry, message: &Message, row: Option<i64>, purpose: &str, report: &Report) -> Speech {
    let purpose = if row.is_some() { purpose } else { ANSWER };
    let Draft { txn, room, payload } = draft_for(entry, message, purpose, report);
    Speech::about(row, room, txn, payload)
}

/// An outcome with its words.
fn worded(entry: &Entry, message: &Message, outcome: &str, report: &Report) -> Done {
    Done { speech: Some(Speech::New(draft(entry, message, report))), ..Done::silent(entry.id, outcome) }
}

impl Operator {
    pub(super) fn read_book(&self) -> std::sync::Arc<Book> {
        std::sync::Arc::clone(&self.book.borrow())
    }

    /// Names the lanes of an entry: the targets that it changes or asks about, or a lane of its own.
    pub(super) fn lanes(&self, entry: &Entry) -> Vec<String> {
        let book = self.read_book();
        match message(entry).map(|message| book.reading(&message)) {
            Some(Reading::Command(command)) if command.targets().len() == 1 || command.changes() => {
                command.targets().iter().filter_map(|name| book.target(name)).map(Target::key).collect()
            }
            _ => vec![format!("#{}", entry.id)],
        }
    }

    /// Tells what came too late to act on, many in one line, and gives back the rest.
    pub(super) async fn tell_stale(&self, entries: Vec<Entry>, now: Timestamp) -> Result<Vec<Entry>, StoreError> {
        let book = self.read_book();
        let (stale, fresh): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| book.rules.is_stale(entry.sent_at, now));
        let mut told: Vec<Vec<(Entry, Message)>> = Vec::new();
        for entry in stale {
            let Some(message) = message(&entry) else {
                self.store.ignore(entry.id, now).await?;
                continue;
            };
            if actor(&message) == Actor::UsageGuard {
                // Nobody waits for an answer, and the guard asks again where it still wants it.
                self.store.finish(Done::silent(entry.id, outcome::TOO_OLD), now).await?;
                continue;
            }
            match book.judged(&message) {
                Judged::Talk => {
                    self.store.ignore(entry.id, now).await?;
                    continue;
                }
                // Why it does not count holds later, too.
                Judged::Refused { refusal, .. } => {
                    self.refuse(&entry, &message, refusal).await?;
                    continue;
                }
                Judged::Mistaken(_) | Judged::Granted { .. } => {}
            }
            // Each where it was said: a thread is read by few.
            let place = |entries: &&mut Vec<(Entry, Message)>| {
                entries.first().is_some_and(|(one, said)| one.room == entry.room && said.thread == message.thread)
            };
            match told.iter_mut().find(place) {
                Some(entries) => entries.push((entry, message)),
                None => told.push(vec![(entry, message)]),
            }
        }
        for entries in told {
            let texts = entries.iter().map(|(_, message)| message.text.trim().to_owned()).collect();
            let report = Report::Stale { texts, limit: book.rules.staleness };
            // Who speaks for several must be heard, although one of them may have had its answer.
            let purpose = if entries.len() == 1 { ANSWER } else { "stale" };
            let all = entries.iter().enumerate().map(|(i, (entry, message))| {
                let speech = (i == 0).then(|| Speech::New(draft_for(entry, message, purpose, &report)));
                Done { speech, ..Done::silent(entry.id, outcome::TOO_OLD) }
            });
            self.store.finish_all(all.collect(), now).await?;
            for _ in &entries {
                self.metrics.command("any", "stale");
            }
            self.outbox.notify_one();
        }
        Ok(fresh)
    }

    /// Does what an entry asks for, up to its last word in the journal.
    pub(super) async fn handle(&self, entry: Entry) -> Result<(), StoreError> {
        let book = self.read_book();
        let Some(message) = message(&entry) else { return self.store.ignore(entry.id, now()).await };
        let actor = actor(&message);
        match book.judged(&message) {
            Judged::Talk | Judged::Mistaken(_) | Judged::Refused { command: None, .. }
                if actor == Actor::UsageGuard =>
            {
                // It names a target that the configuration had a moment ago.
                self.store.finish(Done::silent(entry.id, outcome::TARGET_GONE), now()).await.map(drop)
            }
            Judged::Talk if book.echo && book.rules.users.contains(&message.who) => {
                self.answer(&entry, &message, "echo", &Report::Echo(message.text.clone())).await
            }
            Judged::Talk => self.store.ignore(entry.id, now()).await,
            Judged::Mistaken(mistake) => {
                let targets = known(&book.rules, &actor);
                let report = Report::Mistaken { mistake: mistake.among(&targets), targets };
                self.answer(&entry, &message, "not understood", &report).await
            }
            Judged::Refused { command, refusal } => {
                if let Some(command) = command {
                    self.metrics.command(command.verb().word(), "refused");
                }
                self.refuse(&entry, &message, refusal).await
            }
            Judged::Granted { command, orders } => {
                let work = self.carry_out(&entry, &message, &command, orders, &book);
                if actor == Actor::UsageGuard {
                    return work.await;
                }
                let result = self.while_typing(&entry.room, work).await;
                self.note_room(&entry.room, &book).await;
                result
            }
        }
    }

    async fn carry_out(
        &self,
        entry: &Entry,
        message: &Message,
        command: &Command,
        orders: Vec<Order>,
        book: &Book,
    ) -> Result<(), StoreError> {
        let verb = command.verb();
        tracing::info!(verb = verb.word(), room = %entry.room, "granted");
        match orders.as_slice() {
            [Order::Scale(order)] => Box::pin(self.scale(entry, message, order, book)).await,
            [Order::Restart(order)] => self.restart(entry, message, order, book).await,
            [Order::Repin(order)] => self.repin(entry, message, order, book).await,
            [Order::Mute(order)] => {
                let report = self.mute(order, book).await?;
                self.metrics.command(verb.word(), "done");
                self.confirm(entry, message, outcome::MUTED, &report).await
            }
            [Order::Tell(order)] if matches!(order.topic(), Topic::Usage(Usage::Chart(_))) => {
                self.metrics.command(verb.word(), "told");
                self.chart(entry, message, order.topic(), book).await
            }
            [Order::Tell(order)] => {
                let report = self.tell(order.topic(), book).await?;
                self.metrics.command(verb.word(), "told");
                self.answer(entry, message, outcome::TOLD, &report).await
            }
            _ => self.split(entry, message, command, &orders).await,
        }
    }

    /// Makes one command for each target of a command for several.
    async fn split(
        &self,
        entry: &Entry,
        message: &Message,
        command: &Command,
        orders: &[Order],
    ) -> Result<(), StoreError> {
        let number = match command {
            Command::Start { replicas: Some(replicas), .. } => format!(" {replicas}"),
            _ => String::new(),
        };
        let parts = orders
            .iter()
            .filter_map(|order| match order {
                Order::Scale(order) => Some(order.target()),
                Order::Restart(order) => Some(order.target()),
                Order::Repin(_) | Order::Mute(_) | Order::Tell(_) => None,
            })
            .map(|target| {
                let text = format!("{} {target}{number}", command.verb());
                let part = Message { text, address: Address::Mentioned, ..message.clone() };
                (target.to_owned(), serde_json::to_string(&part).unwrap_or_default())
            })
            .collect();
        self.store.split(entry.id, parts, now()).await?;
        self.inbox.notify_one();
        Ok(())
    }

    /// Closes an entry whose change is on the disk with words.
    pub(super) async fn confirm(
        &self,
        entry: &Entry,
        message: &Message,
        outcome: &str,
        report: &Report,
    ) -> Result<(), StoreError> {
        self.close(worded(entry, message, outcome, report)).await
    }

    /// Closes an entry; its words go out.
    pub(super) async fn close(&self, done: Done) -> Result<(), StoreError> {
        self.store.finish(done, now()).await?;
        self.outbox.notify_one();
        Ok(())
    }

    /// Closes an entry that changed nothing with words.
    pub(super) async fn answer(
        &self,
        entry: &Entry,
        message: &Message,
        outcome: &str,
        report: &Report,
    ) -> Result<(), StoreError> {
        self.store.finish_repeatable(worded(entry, message, outcome, report), now()).await?;
        self.outbox.notify_one();
        Ok(())
    }

    async fn refuse(&self, entry: &Entry, message: &Message, refusal: Refusal) -> Result<(), StoreError> {
        if refusal == Refusal::Stranger {
            return self.store.ignore(entry.id, now()).await;
        }
        tracing::warn!(?refusal, room = %entry.room, "refused");
        let once = Some((format!("refusal/{}/{}", message.who, refusal.key()), REFUSAL_PAUSE));
        let outcome = outcome::refused(reply::in_a_word(&refusal));
        let report = Report::Refused { who: message.who.clone(), refusal };
        let speech = Speech::New(draft_for(entry, message, "refused", &report));
        self.close(Done { speech: Some(speech), once, ..Done::silent(entry.id, &outcome) }).await
    }

    /// Shows that it works, where that takes longer than an answer that comes at once.
    async fn while_typing<T>(&self, room: &str, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if let Ok(result) = tokio::time::timeout(TYPING_PAUSE, &mut work).await {
            return result;
        }
        let result = loop {
            self.typing(room, true);
            if let Ok(result) = tokio::time::timeout(TYPING_AGAIN, &mut work).await {
                break result;
            }
        };
        self.typing(room, false);
        result
    }

    fn typing(&self, room: &str, on: bool) {
        // Best effort: a full queue means that the room has signs of life enough.
        drop(self.gestures.try_send(Gesture::Typing { room: room.to_owned(), on }));
    }

    /// Notes where people speak to Pilothouse; what waited for a room goes out there.
    async fn note_room(&self, room: &str, book: &Book) {
        let note = async {
            if self.store.cursor(LAST_ROOM).await?.as_deref() != Some(room) {
                self.store.set_cursor(LAST_ROOM, room).await?;
                if let Some(home) = chat::home_room(&self.store, book.home_room.as_deref()).await?
                    && chat::bring_home(&self.store, &home, now()).await?
                {
                    self.outbox.notify_one();
                }
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = note.await {
            tracing::warn!(%error, "the room of the last command could not be noted");
        }
    }
}
