//! What else owns the replicas: whoever scales by hand beside one of these will be overruled.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use super::error::Asked;
use super::{Cluster, ClusterError, Target};

/// KEDA's group and version.
const KEDA: &str = "keda.sh/v1alpha1";

/// How long autoscalers that were read are known.
const KNOWN_FOR: Duration = Duration::from_mins(3);
/// After how long they are read again where nobody waits for them.
const OLD_AFTER: Duration = Duration::from_mins(1);

/// Autoscalers by target's key, and when they were read.
pub(super) type Known = HashMap<String, (Instant, Vec<String>)>;

/// Owners that were found, and what could not be seen.
#[derive(Debug, Default)]
pub(super) struct Owners {
    pub(super) found: Vec<String>,
    pub(super) unseen: Vec<String>,
}

impl Cluster {
    /// Names the autoscalers that own the replicas, as far as they may be read; never fails. What was read a moment ago is
    /// not asked for again: this stands before the answer to a command. Tools that declare themselves on the object (Argo
    /// CD, Flux) are in [`Workload::managed_by`](super::Workload::managed_by).
    pub async fn owners(&self, target: &Target) -> Vec<String> {
        match self.known_owners(target, KNOWN_FOR) {
            Some(found) => found,
            None => self.read_owners(target).await,
        }
    }

    /// Reads the autoscalers again where that was a while ago, so that no command has to wait for them.
    pub(super) async fn know_owners(&self, target: &Target) {
        if self.known_owners(target, OLD_AFTER).is_none() {
            self.read_owners(target).await;
        }
    }

    fn known_owners(&self, target: &Target, since: Duration) -> Option<Vec<String>> {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let (read_at, found) = owners.get(&target.key())?;
        (read_at.elapsed() < since).then(|| found.clone())
    }

    async fn read_owners(&self, target: &Target) -> Vec<String> {
        let Owners { mut found, unseen } = self.autoscalers(target).await;
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if !unseen.is_empty()
            && let Some((_, known)) = owners.get(&target.key())
        {
            // What cannot be seen just now is as it was.
            found.clone_from(known);
        }
        owners.insert(target.key(), (Instant::now(), found.clone()));
        found
    }

    /// Finds autoscalers that point at the target.
    pub(super) async fn autoscalers(&self, target: &Target) -> Owners {
        let (scaled_objects, pod_autoscalers) = tokio::join!(self.scaled_objects(target), self.pod_autoscalers(target));
        let mut owners = Owners::default();
        for (what, found) in [("KEDA's ScaledObjects", scaled_objects), ("HorizontalPodAutoscalers", pod_autoscalers)] {
            match found {
                Ok(found) => owners.found.extend(found),
                Err(error) => owners.unseen.push(format!("{what}: {error}")),
            }
        }
        owners
    }

    async fn pod_autoscalers(&self, target: &Target) -> Result<Vec<String>, ClusterError> {
        let asked = Asked::beside("list", target, "horizontalpodautoscalers.autoscaling");
        let api = self.api::<HorizontalPodAutoscaler>(target);
        let list = self.call(&asked, api.list(&ListParams::default())).await?;
        let points_here = |hpa: &&HorizontalPodAutoscaler| {
            hpa.spec.as_ref().is_some_and(|spec| {
                spec.scale_target_ref.kind == format!("{:?}", target.kind)
                    && spec.scale_target_ref.name == target.object
            })
        };
        // KEDA works through an autoscaler of its own; its ScaledObject is the one to name.
        let is_kedas = |hpa: &HorizontalPodAutoscaler| hpa.owner_references().iter().any(|o| o.kind == "ScaledObject");
        let found = list.items.iter().filter(points_here).filter(|hpa| !is_kedas(hpa));
        Ok(found.map(|hpa| format!("HorizontalPodAutoscaler {}", hpa.name_any())).collect())
    }

    async fn scaled_objects(&self, target: &Target) -> Result<Vec<String>, ClusterError> {
        // Everybody may ask which kinds there are; where KEDA is not, nothing is missed. No other answer says that.
        let asked = Asked::clusterwide("get", KEDA);
        let is_there = async {
            match self.client.list_api_group_resources(KEDA).await {
                // Of a group that it does not know the API server says so in plain text, without a reason.
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
                answer => answer.map(|_| true),
            }
        };
        if !self.call(&asked, is_there).await? {
            return Ok(Vec::new());
        }
        let kind = GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject");
        let resource = ApiResource::from_gvk_with_plural(&kind, "scaledobjects");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &target.namespace, &resource);
        let asked = Asked::beside("list", target, "scaledobjects.keda.sh");
        let list = self.call(&asked, api.list(&ListParams::default())).await?;
        let found = list.items.iter().filter(|object| scales(&object.data, target));
        Ok(found.map(|object| format!("ScaledObject {}", object.name_any())).collect())
    }
}

/// Whether a ScaledObject points at the target; without a kind it means a Deployment.
fn scales(object: &serde_json::Value, target: &Target) -> bool {
    let Some(reference) = object.pointer("/spec/scaleTargetRef") else { return false };
    let kind = reference.get("kind").and_then(|kind| kind.as_str()).unwrap_or("Deployment");
    let name = reference.get("name").and_then(|name| name.as_str());
    kind == format!("{:?}", target.kind) && name == Some(target.object.as_str())
}

/// Reads from labels and annotations who keeps the object as it is in Git: Argo CD by its tracking id or label, Flux by
/// the labels of its controllers. (Argo CD's default label is also everybody else's, and so tells nothing.)
pub(super) fn declared(metadata: &ObjectMeta) -> Option<String> {
    let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let annotation = |key: &str| metadata.annotations.as_ref().and_then(|annotations| annotations.get(key));
    if let Some(id) = annotation("argocd.argoproj.io/tracking-id") {
        let application = id.split(':').next().unwrap_or(id);
        return Some(format!("Argo CD application {application}"));
    }
    if let Some(application) = label("argocd.argoproj.io/instance") {
        return Some(format!("Argo CD application {application}"));
    }
    if let Some(name) = label("helm.toolkit.fluxcd.io/name") {
        return Some(format!("Flux HelmRelease {name}"));
    }
    label("kustomize.toolkit.fluxcd.io/name").map(|name| format!("Flux Kustomization {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_and_annotations_tell_who_keeps_the_object() {
        let table = [
            (json!({}), None),
            (json!({ "labels": { "app.kubernetes.io/instance": "web" } }), None),
            (
                json!({ "annotations": { "argocd.argoproj.io/tracking-id": "shop:apps/Deployment:apps/web" } }),
                Some("Argo CD application shop"),
            ),
            (json!({ "labels": { "argocd.argoproj.io/instance": "shop" } }), Some("Argo CD application shop")),
            (json!({ "labels": { "kustomize.toolkit.fluxcd.io/name": "apps" } }), Some("Flux Kustomization apps")),
            (json!({ "labels": { "helm.toolkit.fluxcd.io/name": "web" } }), Some("Flux HelmRelease web")),
        ];
        for (metadata, expected) in table {
            let metadata: ObjectMeta = serde_json::from_value(metadata).unwrap();
            assert_eq!(declared(&metadata).as_deref(), expected);
        }
    }

    #[test]
    fn a_scaled_object_without_a_kind_means_a_deployment() {
        let web = super::super::tests::deployment("web");
        let reference = |value| json!({ "spec": { "scaleTargetRef": value } });
        assert!(scales(&reference(json!({ "name": "web" })), &web));
        assert!(!scales(&reference(json!({ "name": "web", "kind": "StatefulSet" })), &web));
        assert!(!scales(&reference(json!({ "name": "other" })), &web));
        assert!(!scales(&json!({}), &web));
    }
}
