//! A restart as `kubectl rollout restart` does it: an annotation of the pod template.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::{Patch, PatchParams};

use super::error::Asked;
use super::{Cluster, ClusterError, FIELD_MANAGER, Target, Version};
use crate::config::Kind;

/// kubectl's own annotation, so that both tell the same story.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

impl Cluster {
    /// Begins a new rollout of the same template, and gives what that made of the object. Needs `patch` on the object, which
    /// also allows changing its image.
    ///
    /// # Errors
    /// [`ClusterError::Pointless`] where nothing would roll: a paused Deployment, no replicas, `OnDelete`; otherwise as the API
    /// server says.
    pub async fn restart(&self, target: &Target, now: Timestamp) -> Result<Version, ClusterError> {
        let workload = self.workload(target).await?;
        let refuse = |why: &str| Err(ClusterError::Pointless(format!("{target} {why}")));
        if workload.paused {
            return refuse("is paused, so a restart would change nothing; run `kubectl rollout resume` first");
        }
        if workload.desired == 0 {
            return refuse("has no replicas, so there is nothing to restart");
        }
        if workload.on_delete {
            return refuse(
                "replaces pods only when they are deleted (updateStrategy OnDelete), so a restart would change nothing",
            );
        }
        let asked = Asked::of("patch", target, "");
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Strategic(serde_json::json!({
            "spec": { "template": { "metadata": { "annotations": { RESTARTED_AT: now.to_string() } } } }
        }));
        let metadata = match target.kind {
            Kind::Deployment => {
                let api = self.api::<Deployment>(target);
                self.call(&asked, api.patch(&target.object, &params, &patch)).await?.metadata
            }
            Kind::StatefulSet => {
                let api = self.api::<StatefulSet>(target);
                self.call(&asked, api.patch(&target.object, &params, &patch)).await?.metadata
            }
        };
        Ok(Version::of(&metadata))
    }

    /// Asks whether a restart is allowed, without trying one.
    ///
    /// # Errors
    /// [`ClusterError`] when no answer came.
    pub async fn may_restart(&self, target: &Target) -> Result<bool, ClusterError> {
        self.may(target, "patch", "apps", target.resource(), true).await
    }
}
