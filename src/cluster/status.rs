//! `status`: everything that may be seen of a workload, and what may not.

use jiff::Timestamp;

use super::{Cluster, ClusterError, Happening, Left, Target, Trouble, Workload};
use crate::config::Kind;

/// Most events that are told.
const EVENTS: usize = 3;

/// What `status` tells beyond one read; each part is `None` where the permission is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The read itself.
    pub workload: Workload,
    /// Pods that still exist: a workload without replicas is stopped when none is left.
    pub left: Left,
    /// Why pods are not ready.
    pub troubles: Option<Vec<Trouble>>,
    /// Last Kubernetes Events of the object, newest first, at most three.
    pub events: Option<Vec<Happening>>,
    /// What else owns the replicas: HPA, ScaledObject, Argo CD, Flux, as `kind name`.
    pub owners: Vec<String>,
    /// What could not be seen, each with the missing permission.
    pub unseen: Vec<String>,
}

impl Cluster {
    /// Reads the workload, and beside it whatever else may be read.
    ///
    /// # Errors
    /// [`ClusterError`] of the one read that is needed; everything else is told in [`Description::unseen`].
    pub async fn describe(&self, target: &Target, now: Timestamp) -> Result<Description, ClusterError> {
        let mut snapshot = self.snapshot(target).await?;
        let (look, happenings, owners) = tokio::join!(
            self.look(target, &snapshot, now),
            self.happenings(target, &snapshot.workload.version.uid),
            self.autoscalers(target)
        );
        // A StatefulSet has no condition that says it; its pods do, once all of them are there.
        if target.kind == Kind::StatefulSet && snapshot.workload.is_ready() {
            snapshot.workload.since = look.since;
        }
        let left = look.left.map_or(snapshot.left(), Left::Counted);
        let mut unseen = look.unseen;
        let troubles = (unseen.is_empty() || !look.troubles.is_empty()).then_some(look.troubles);
        let events = happenings
            .map(|events| events.into_iter().take(EVENTS).collect())
            .map_err(|error| unseen.push(format!("last events: {error}")))
            .ok();
        unseen.extend(owners.unseen);
        let mut owners = owners.found;
        owners.extend(snapshot.workload.managed_by.clone());
        Ok(Description { workload: snapshot.workload, left, troubles, events, owners, unseen })
    }
}
