//! The one write that the main job needs.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::error::Asked;
use super::{Cluster, ClusterError, FIELD_MANAGER, Target};
use crate::config::Kind;

impl Cluster {
    /// Sets the replicas. Absolute, so it may be repeated; needs only `patch` on the scale subresource.
    ///
    /// # Errors
    /// [`ClusterError`]; after [`ClusterError::Timeout`] nothing is certain.
    pub async fn scale(&self, target: &Target, replicas: i32) -> Result<(), ClusterError> {
        self.write_scale(target, replicas, json!({ "spec": { "replicas": replicas } })).await
    }

    /// As [`Cluster::scale`], but only while the object is at this `metadata.resourceVersion`: nobody has changed it since it
    /// was seen so. (Kubernetes API conventions, "Concurrency Control and Consistency".)
    ///
    /// # Errors
    /// As [`Cluster::scale`]; after [`ClusterError::Conflict`] nothing was written.
    pub async fn scale_at(&self, target: &Target, replicas: i32, resource_version: &str) -> Result<(), ClusterError> {
        let metadata = json!({ "resourceVersion": resource_version });
        self.write_scale(target, replicas, json!({ "metadata": metadata, "spec": { "replicas": replicas } })).await
    }

    async fn write_scale(&self, target: &Target, replicas: i32, scale: Value) -> Result<(), ClusterError> {
        // Before the write: a watch may show it sooner than the answer comes.
        let before = self.note_written(target, Some(replicas));
        self.note_seen(target, None);
        let written = self.patch_scale(target, &Patch::Merge(scale)).await;
        if written.as_ref().is_err_and(|error| !error.is_uncertain()) {
            self.note_written(target, before);
        }
        written
    }

    async fn patch_scale(&self, target: &Target, patch: &Patch<Value>) -> Result<(), ClusterError> {
        let asked = Asked::of("patch", target, "/scale");
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match target.kind {
            Kind::Deployment => {
                let api = self.api::<Deployment>(target);
                self.call(&asked, api.patch_scale(&target.object, &params, patch)).await?;
            }
            Kind::StatefulSet => {
                let api = self.api::<StatefulSet>(target);
                self.call(&asked, api.patch_scale(&target.object, &params, patch)).await?;
            }
        }
        Ok(())
    }
}
