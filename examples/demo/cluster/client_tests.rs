//! The pretend cluster as the unmodified Kubernetes client sees it.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, LogParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::events::{Event as NewEvent, EventType, Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Client, Config, Resource as _, ResourceExt as _, discovery};
use serde_json::json;

use super::server;

const DEADLINE: Duration = Duration::from_secs(30);

async fn client() -> Client {
    let address = server::start().await.unwrap();
    let mut config = Config::new(format!("http://{address}").parse().unwrap());
    config.default_namespace = "demo".to_owned();
    Client::try_from(config).unwrap()
}

/// Waits until a watched Deployment is as wanted.
async fn watch_until(api: &Api<Deployment>, name: &str, holds: impl Fn(&Deployment) -> bool) -> Deployment {
    let stream = watcher::watch_object(api.clone(), name);
    let mut stream = std::pin::pin!(stream);
    tokio::time::timeout(DEADLINE, async {
        loop {
            if let Some(Some(object)) = stream.try_next().await.unwrap()
                && holds(&object)
            {
                return object;
            }
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_scale_patch_is_watched_until_ready() {
    let api: Api<Deployment> = Api::default_namespaced(client().await);
    let before = api.get_scale("website").await.unwrap();
    assert_eq!(before.spec.unwrap().replicas, Some(0));
    let by = PatchParams { field_manager: Some("pilothouse".to_owned()), ..PatchParams::default() };
    let after = api.patch_scale("website", &by, &Patch::Merge(json!({"spec": {"replicas": 2}}))).await.unwrap();
    assert_eq!(after.spec.unwrap().replicas, Some(2));
    let ready = watch_until(&api, "website", |object| {
        object.status.as_ref().is_some_and(|status| status.ready_replicas == Some(2))
    })
    .await;
    assert_eq!(ready.managed_fields()[0].manager.as_deref(), Some("pilothouse"));
    assert_eq!(ready.status.unwrap().observed_generation, ready.metadata.generation);
}

#[tokio::test]
async fn a_crash_can_be_read_from_pod_and_log() {
    let client = client().await;
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let up = Patch::Merge(json!({"spec": {"replicas": 1}}));
    api.patch_scale("report", &PatchParams::default(), &up).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client);
    let stream = watcher(pods.clone(), watcher::Config::default().labels("app=report"));
    let mut stream = std::pin::pin!(stream);
    let name = tokio::time::timeout(DEADLINE, async {
        loop {
            let event = stream.try_next().await.unwrap().unwrap();
            if let watcher::Event::Apply(pod) = event
                && pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].restart_count == 1
            {
                return pod.name_any();
            }
        }
    })
    .await
    .unwrap();
    let tail = LogParams { tail_lines: Some(1), ..LogParams::default() };
    assert!(pods.logs(&name, &tail).await.unwrap().starts_with("error:"));
}

#[tokio::test]
async fn discovery_reviews_and_events_are_those_of_a_real_server() {
    let client = client().await;
    assert_eq!(client.apiserver_version().await.unwrap().minor, "35");
    let kind = GroupVersionKind::gvk("apps", "v1", "StatefulSet");
    let (resource, capabilities) = discovery::pinned_kind(&client, &kind).await.unwrap();
    assert_eq!(resource.plural, "statefulsets");
    assert!(capabilities.subresources.iter().any(|(sub, _)| sub.plural == "scale"));

    let review: SelfSubjectAccessReview =
        serde_json::from_value(json!({"spec": {"resourceAttributes": {"verb": "patch", "resource": "pods"}}})).unwrap();
    let review =
        Api::<SelfSubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await.unwrap();
    assert!(review.status.unwrap().allowed);

    let sets: Api<StatefulSet> = Api::default_namespaced(client.clone());
    let database = sets.get("database").await.unwrap();
    let event = NewEvent {
        type_: EventType::Normal,
        reason: "ScaledByChat".to_owned(),
        note: Some("asked for by @you:localhost".to_owned()),
        action: "Scale".to_owned(),
        secondary: None,
    };
    let recorder = Recorder::new(client.clone(), Reporter { controller: "test".to_owned(), instance: None });
    recorder.publish(&event, &database.object_ref(&())).await.unwrap();
    let events: Api<Event> = Api::default_namespaced(client.clone());
    let about = ListParams::default().fields("involvedObject.name=database,reason=ScaledByChat");
    let found = events.list(&about).await.unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(found.items[0].message.as_deref(), Some("asked for by @you:localhost"));
}

#[tokio::test]
async fn what_is_not_there_is_told_as_kubernetes_tells_it() {
    let client = client().await;
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let missing = api.get("nothing").await;
    assert!(matches!(&missing, Err(kube::Error::Api(status)) if status.is_not_found()), "{missing:?}");
    let again = Deployment {
        metadata: ObjectMeta { name: Some("website".to_owned()), ..ObjectMeta::default() },
        ..Deployment::default()
    };
    let twice = api.create(&PostParams::default(), &again).await;
    assert!(matches!(&twice, Err(kube::Error::Api(status)) if status.is_already_exists()), "{twice:?}");
    let kind = GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject");
    assert!(discovery::pinned_kind(&client, &kind).await.is_err());
}
