//! The one write that the main job needs.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::{Patch, PatchParams};

use super::error::Asked;
use super::{Cluster, ClusterError, FIELD_MANAGER, Target};
use crate::config::Kind;

impl Cluster {
    /// Sets the replicas. Absolute, so it may be repeated; needs only `patch` on the scale subresource.
    ///
    /// # Errors
    /// [`ClusterError`]; after [`ClusterError::Timeout`] nothing is certain.
    pub async fn scale(&self, target: &Target, replicas: i32) -> Result<(), ClusterError> {
        // Before the write: a watch may show it sooner than the answer comes.
        self.note_written(target, Some(replicas));
        let written = self.write_scale(target, replicas).await;
        if written.as_ref().is_err_and(|error| *error != ClusterError::Timeout) {
            self.note_written(target, None);
        }
        written
    }

    async fn write_scale(&self, target: &Target, replicas: i32) -> Result<(), ClusterError> {
        let asked = Asked::of("patch", target, "/scale");
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(serde_json::json!({ "spec": { "replicas": replicas } }));
        match target.kind {
            Kind::Deployment => {
                let api = self.api::<Deployment>(target);
                self.call(&asked, api.patch_scale(&target.object, &params, &patch)).await?;
            }
            Kind::StatefulSet => {
                let api = self.api::<StatefulSet>(target);
                self.call(&asked, api.patch_scale(&target.object, &params, &patch)).await?;
            }
        }
        Ok(())
    }
}
