use pilothouse::cluster::{ClusterError, PERMISSIONS};
use pilothouse::config::Kind;

use super::{MINIMAL, admin, limited, now, target, web};
use crate::support::control_plane::with_namespace;

#[tokio::test]
async fn each_permission_is_asked_for_without_being_tried() {
    with_namespace(async |namespace| {
        let targets = [web(&namespace), target(&namespace, Kind::StatefulSet, "db")];
        let all = admin(&namespace).await.access(&targets).await;
        assert!(all.iter().all(|access| access.allowed == Ok(true)), "{all:#?}");

        let minimal = limited(&namespace, MINIMAL).await.access(&targets).await;
        assert_eq!(minimal.len(), all.len());
        for access in &minimal {
            assert_eq!(access.allowed, Ok(access.permission.required), "{access:?}");
        }
        let asked = |resource: &str| minimal.iter().filter(|access| access.permission.resource == resource).count();
        assert_eq!((asked("pods"), asked("deployments/scale"), asked("statefulsets/scale")), (1, 1, 1));
        assert_eq!(asked("pods/log"), 0, "without show_logs, no log is read");
        assert_eq!(PERMISSIONS.len(), minimal.len() + 1);
    })
    .await;
}

#[tokio::test]
async fn a_permission_by_name_holds_for_that_name_only() {
    with_namespace(async |namespace| {
        let rules = "
- {apiGroups: [apps], resources: [deployments], resourceNames: [web], verbs: [get, patch]}
- {apiGroups: [apps], resources: [deployments/scale], resourceNames: [web], verbs: [patch]}";
        namespace.deployment("web", "ready:1", 0).await;
        namespace.deployment("shop", "ready:1", 0).await;
        let (web, shop) = (web(&namespace), target(&namespace, Kind::Deployment, "shop"));
        let cluster = limited(&namespace, rules).await;
        let access = cluster.access(&[web.clone(), shop.clone()]).await;
        for access in access.iter().filter(|access| access.permission.required) {
            assert_eq!(access.allowed, Ok(access.target == web), "{access:?}");
        }
        assert_eq!((cluster.may_restart(&web).await, cluster.may_restart(&shop).await), (Ok(true), Ok(false)));
        cluster.scale(&web, 1).await.unwrap();
        let name = &namespace.name;
        assert_eq!(
            cluster.scale(&shop, 1).await,
            Err(ClusterError::Forbidden(format!("patch deployments/scale in {name}")))
        );
        assert_eq!(cluster.workload(&shop).await, Err(ClusterError::Forbidden(format!("get deployments in {name}"))));
    })
    .await;
}

#[tokio::test]
async fn the_minimal_role_may_not_restart() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "ready:1", 1).await;
        let (cluster, web) = (limited(&namespace, MINIMAL).await, web(&namespace));
        assert_eq!(cluster.may_restart(&web).await, Ok(false));
        let missing = ClusterError::Forbidden(format!("patch deployments in {}", namespace.name));
        assert_eq!(cluster.restart(&web, now()).await, Err(missing));
    })
    .await;
}
