use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::ResourceExt as _;
use pilothouse::cluster::ClusterError;
use pilothouse::config::Kind;

use super::{MINIMAL, limited, scale_as, target, web};
use crate::support::control_plane::with_namespace;

#[tokio::test]
async fn replicas_are_written_only_while_the_object_is_as_it_was_seen() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        namespace.workload::<StatefulSet>("StatefulSet", "db", "fine", 0).await;
        let cluster = limited(&namespace, MINIMAL).await;
        let (web, db) = (web(&namespace), target(&namespace, Kind::StatefulSet, "db"));
        for target in [&web, &db] {
            let (seen, done) = loop {
                // Its controller may just be noting that it has seen it.
                let seen = cluster.workload(target).await.unwrap().resource_version.unwrap();
                match cluster.scale_at(target, 2, &seen).await {
                    Err(ClusterError::Conflict(_)) => {}
                    done => break (seen, done),
                }
            };
            done.unwrap();
            let again = cluster.scale_at(target, 3, &seen).await;
            assert!(matches!(again, Err(ClusterError::Conflict(_))), "{again:?}");
            assert_eq!(cluster.workload(target).await.unwrap().desired, 2, "nothing was written");
        }
    })
    .await;
}

#[tokio::test]
async fn an_object_that_was_made_anew_is_not_the_one_that_was_seen() {
    with_namespace(async |namespace| {
        let made = namespace.deployment("web", "fine", 0).await;
        let (cluster, web) = (limited(&namespace, MINIMAL).await, web(&namespace));
        let seen = made.resource_version().unwrap();
        namespace.api::<Deployment>().delete("web", &kube::api::DeleteParams::default()).await.unwrap();
        let gone = cluster.scale_at(&web, 2, &seen).await;
        assert!(matches!(gone, Err(ClusterError::NotFound(_))), "{gone:?}");
        namespace.deployment("web", "fine", 0).await;
        let other = cluster.scale_at(&web, 2, &seen).await;
        assert!(matches!(other, Err(ClusterError::Conflict(_))), "{other:?}");
        scale_as("kubectl", &namespace, "web", 1).await;
        assert_eq!(cluster.workload(&web).await.unwrap().desired, 1);
    })
    .await;
}
