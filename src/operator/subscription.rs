//! What people ask of the subscription.

use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use super::{Book, Operator, now};
use crate::command::Usage;
use crate::policy::Mute;
use crate::reply::Report;
use crate::store::StoreError;
use crate::usage::accuracy::accuracy;
use crate::usage::overview;
use crate::usage::watcher::Question;

/// How long a person waits for the provider before the last numbers are shown.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

impl Operator {
    pub(super) async fn usage(&self, usage: Usage, book: &Book) -> Result<Report, StoreError> {
        match usage {
            Usage::Show => self.overview(book).await,
            Usage::Now => {
                if let Some(at) = self.ask_now().await {
                    return Ok(Report::UsageNotYet { at, now: now(), zone: book.usage.zone.clone() });
                }
                self.overview(book).await
            }
            Usage::Accuracy => {
                let (foretold, closed) = (self.store.forecasts().await?, self.store.closed_windows(None).await?);
                Ok(Report::UsageAccuracy(accuracy(&foretold, &closed, book.usage.settings.alarm.threshold)))
            }
            Usage::Chart(_) | Usage::Mute(_) => Ok(Report::Trouble),
        }
    }

    async fn overview(&self, book: &Book) -> Result<Report, StoreError> {
        Ok(Report::Usage(overview::read(&self.store, &book.usage, now()).await?))
    }

    /// Has the provider asked; gives when that may be, where it may not be now.
    async fn ask_now(&self) -> Option<Timestamp> {
        let (answer, answered) = oneshot::channel();
        self.usage.send(Question { answer }).await.ok()?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(Err(at))) => Some(at),
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
