//! Kubernetes Events: the record on the object itself, read and written.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as CoreEvent, ObjectReference};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{ListParams, PostParams};

use super::error::Asked;
use super::{Cluster, ClusterError, FIELD_MANAGER, Target, words};

/// Most characters of [`Happening::note`].
const NOTE: usize = 200;
/// Most bytes of the note of an event, set by the API server.
const WRITTEN_NOTE: usize = 1024;
/// Most bytes of the object's name in the name of an event, which may have 253.
const NAME: usize = 200;
/// Most events of one object that are read to find the last ones.
const EVENTS: u32 = 500;

/// A Kubernetes Event, shortened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// When.
    pub at: Option<Timestamp>,
    /// Its reason.
    pub reason: String,
    /// Its note, at most 200 characters.
    pub note: String,
}

/// What an own Event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Makes its name, so that the same record is written once: small letters and digits.
    pub id: String,
    /// One `CamelCase` word.
    pub reason: &'static str,
    /// At most 1 kB of it is kept.
    pub note: String,
    /// When it happened.
    pub at: Timestamp,
}

impl Cluster {
    /// Writes a Kubernetes Event on the object, for those who look at it with `kubectl describe`. Does nothing where
    /// the configuration says so, and where it is written already.
    ///
    /// # Errors
    /// [`ClusterError`]; the change that it records has happened anyway.
    pub async fn record(&self, target: &Target, record: &Record) -> Result<(), ClusterError> {
        if !self.write_events {
            return Ok(());
        }
        let Record { id, reason, note, at } = record;
        // Without the uid, `kubectl describe` does not show it.
        let uid = self.snapshot(target).await?.workload.version.uid;
        let object = words::within_bytes(&target.object, NAME).trim_end_matches(['.', '-']);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{object}.{id}")),
                namespace: Some(target.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(*at)),
            type_: Some("Normal".to_owned()),
            reason: Some((*reason).to_owned()),
            action: Some((*reason).to_owned()),
            note: Some(words::within_bytes(note, WRITTEN_NOTE).to_owned()),
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(FIELD_MANAGER.to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: Some(format!("{:?}", target.kind)),
                namespace: Some(target.namespace.clone()),
                name: Some(target.object.clone()),
                uid: Some(uid),
                ..ObjectReference::default()
            }),
            ..Event::default()
        };
        let asked = Asked::beside("create", target, "events.events.k8s.io");
        match self.call(&asked, self.api::<Event>(target).create(&PostParams::default(), &event)).await {
            Err(ClusterError::Conflict(_)) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads what happened to the object, newest first. Both groups show the same events; either permission does.
    pub(super) async fn happenings(&self, target: &Target, uid: &str) -> Result<Vec<Happening>, ClusterError> {
        let params = ListParams::default().fields(&format!("regarding.uid={uid}")).limit(EVENTS);
        let asked = Asked::beside("list", target, "events.events.k8s.io");
        let mut happenings: Vec<Happening> = match self.call(&asked, self.api::<Event>(target).list(&params)).await {
            Ok(events) => events.items.into_iter().map(Happening::from).collect(),
            Err(forbidden @ ClusterError::Forbidden(_)) => {
                let params = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(EVENTS);
                let asked = Asked::beside("list", target, "events");
                let events =
                    self.call(&asked, self.api::<CoreEvent>(target).list(&params)).await.map_err(|_| forbidden)?;
                events.items.into_iter().map(Happening::from).collect()
            }
            Err(error) => return Err(error),
        };
        happenings.sort_by_key(|happening| std::cmp::Reverse(happening.at));
        Ok(happenings)
    }
}

impl From<Event> for Happening {
    fn from(event: Event) -> Self {
        let series = event.series.map(|series| series.last_observed_time.0);
        let last = event.deprecated_last_timestamp.map(|time| time.0);
        let at = latest([series, last, event.event_time.map(|time| time.0)], event.metadata.creation_timestamp);
        Self::new(at, event.reason, event.note)
    }
}

impl From<CoreEvent> for Happening {
    fn from(event: CoreEvent) -> Self {
        let series = event.series.and_then(|series| series.last_observed_time).map(|time| time.0);
        let last = event.last_timestamp.map(|time| time.0);
        let at = latest([series, last, event.event_time.map(|time| time.0)], event.metadata.creation_timestamp);
        Self::new(at, event.reason, event.message)
    }
}

impl Happening {
    fn new(at: Option<Timestamp>, reason: Option<String>, note: Option<String>) -> Self {
        Self { at, reason: reason.unwrap_or_default(), note: words::line(&note.unwrap_or_default(), NOTE) }
    }
}

/// An event has up to four times, by its age and its writer; the last of them is when it happened last.
fn latest(times: [Option<Timestamp>; 3], created: Option<Time>) -> Option<Timestamp> {
    times.into_iter().flatten().max().or(created.map(|time| time.0))
}
