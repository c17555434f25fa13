//! What people ask of the subscription.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use super::gate::{draft, speech};
use super::guarded::anchor;
use super::{Book, Operator, now};
use crate::command::Usage;
use crate::message::{Image, Message, Outgoing};
use crate::policy::{Mute, Topic};
use crate::reply::{self, Report};
use crate::store::inbox::Entry;
use crate::store::orders::Done;
use crate::store::outbox::{Draft, Speech};
use crate::store::{StoreError, outcome};
use crate::usage::accuracy::accuracy;
use crate::usage::decide::BucketState;
use crate::usage::view::{self, View};
use crate::usage::watcher::Question;
use crate::usage::{chart, digest, overview};

/// How long a person waits for the provider before the last numbers are shown.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

impl Operator {
    pub(super) async fn usage(&self, usage: Usage, book: &Book) -> Result<Report, StoreError> {
        match usage {
            // A picture goes out by another way, and so does silence; where they come here, words say as much.
            Usage::Show | Usage::Chart(_) | Usage::Mute(_) => self.overview(book).await,
            Usage::Now => {
                if let Some(at) = self.ask_now().await {
                    return Ok(Report::UsageNotYet { at, now: now(), zone: book.usage.zone.clone() });
                }
                self.overview(book).await
            }
            Usage::Accuracy => {
                let (foretold, closed) = (self.store.forecasts().await?, self.store.closed_windows(None).await?);
                let (accounts, rule) = (book.usage.accounts.clone(), book.usage.settings.alarm.clone());
                // Two years of hourly forecasts: not for a thread that others wait for.
                let scored = tokio::task::spawn_blocking(move || accuracy(&foretold, &closed, &accounts, &rule));
                Ok(Report::UsageAccuracy(scored.await.map_err(StoreError::from)?))
            }
        }
    }

    /// Answers with a picture; where none can be drawn, with words.
    pub(super) async fn chart(
        &self,
        entry: &Entry,
        message: &Message,
        topic: &Topic,
        book: &Book,
    ) -> Result<(), StoreError> {
        let Topic::Usage(Usage::Chart(span)) = topic else { return Ok(()) };
        let Some(chart) = self.drawing(*span, book).await? else {
            return self.answer(entry, message, outcome::TOLD, &Report::Usage(self.read_overview(book).await?)).await;
        };
        let words = Report::UsageChart(chart::alternative(&chart));
        let drawn = tokio::task::spawn_blocking(move || chart::png(&chart)).await.map_err(StoreError::from)?;
        let image = match drawn {
            Ok(png) => Some(Image {
                name: "usage.png".to_owned(),
                png: STANDARD.encode(png),
                width: chart::WIDTH,
                height: chart::HEIGHT,
            }),
            Err(error) => {
                tracing::warn!(%error, "the chart could not be drawn; its words go out alone");
                None
            }
        };
        let draft = Draft {
            payload: Outgoing { image, ..speech(&words, anchor(message)) }.json(),
            ..draft(entry, message, &words)
        };
        let done = Done { speech: Some(Speech::New(draft)), ..Done::silent(entry.id, outcome::TOLD) };
        self.close(done).await
    }

    async fn drawing(&self, span: SignedDuration, book: &Book) -> Result<Option<chart::Chart>, StoreError> {
        let (plan, now) = (&book.usage, now());
        let states: Vec<BucketState> = overview::states(&self.store).await?;
        // A limit that the provider names no more says nothing of today.
        let seen = |state: &BucketState| state.window().is_some_and(|window| window.latest().at >= now - span);
        let states: Vec<BucketState> =
            states.into_iter().filter(|state| plan.watches(&state.bucket) && seen(state)).collect();
        let Some(state) = view::foremost(&states) else { return Ok(None) };
        let bucket = state.bucket.to_string();
        let samples = self.store.samples(Some(bucket.clone()), now - span).await?;
        let closed: Vec<_> = self.store.closed_windows(Some(bucket)).await?.iter().filter_map(digest::window).collect();
        let view = View {
            state,
            title: &reply::usage::name(&state.bucket),
            samples: &samples,
            closed: &closed,
            estimator: plan.settings.estimator,
            thresholds: plan.settings.thresholds.of(&state.bucket.kind),
            interval: plan.interval,
        };
        Ok(Some(view.chart(span, &plan.zone, now)))
    }

    async fn read_overview(&self, book: &Book) -> Result<overview::Overview, StoreError> {
        overview::read(&self.store, &book.usage, now()).await
    }

    async fn overview(&self, book: &Book) -> Result<Report, StoreError> {
        Ok(Report::Usage(self.read_overview(book).await?))
    }

    /// Has the provider asked; gives when that may be, where it may not be now.
    async fn ask_now(&self) -> Option<Timestamp> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.usage.send(Question { answer }).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Some(Err(at))) => Some(at),
            // Asked, or it takes too long: the last numbers carry their age.
            _ => None,
        }
    }

    pub(super) async fn mute(&self, order: &Mute, book: &Book) -> Result<Report, StoreError> {
        let now = now();
        let until = now + order.span();
        self.store.mute(until).await?;
        let until = (order.span() > SignedDuration::ZERO).then_some(until);
        Ok(Report::UsageMuted { until, now, zone: book.usage.zone.clone() })
    }
}
