//! The one list of what Pilothouse may need, and what is lost without each.

use futures_util::{StreamExt, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use super::error::Asked;
use super::{Cluster, ClusterError, Target};
use crate::config::Kind;

/// A permission as RBAC writes it, and why it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Plural, with its subresource (`deployments/scale`).
    pub resource: &'static str,
    /// Verb.
    pub verb: &'static str,
    /// Kind of target that needs it; `None` for every kind.
    pub kind: Option<Kind>,
    /// Whether RBAC can limit it to the target's name (`resourceNames`).
    pub named: bool,
    /// Whether nothing works without it.
    pub required: bool,
    /// What of the configuration asks for it.
    pub when: When,
    /// What it is for.
    pub needed_for: &'static str,
    /// What people miss without it.
    pub lost_without: &'static str,
}

/// When a permission is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// With `kubernetes.show_logs`.
    ShowLogs,
    /// With `kubernetes.events`.
    Events,
    /// When people shall be able to restart; the shipped Role leaves it out, since it also allows changing the image.
    Restart,
}

impl Permission {
    const fn of(kind: Kind, resource: &'static str, verb: &'static str) -> Self {
        Self { kind: Some(kind), named: true, ..Self::beside("apps", resource, verb) }
    }

    const fn beside(group: &'static str, resource: &'static str, verb: &'static str) -> Self {
        Self {
            group,
            resource,
            verb,
            kind: None,
            named: false,
            required: false,
            when: When::Always,
            needed_for: "",
            lost_without: "",
        }
    }

    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    const fn why(self, needed_for: &'static str, lost_without: &'static str) -> Self {
        Self { needed_for, lost_without, ..self }
    }
}

const READ: (&str, &str) = ("status, and knowing when a rollout is done", "nothing works");
const SCALE: (&str, &str) = ("start and stop", "nothing can be started or stopped");
const WATCH: (&str, &str) =
    ("telling progress and drift at once", "rollouts are asked for every 2 s, drift every 60 s");
const RESTART: (&str, &str) =
    ("restart", "restart is off (the permission also allows changing the image, so leave it out unless it is used)");

/// Every permission that Pilothouse can use. The usage guard needs none of its own: it stops and starts as people do, and
/// whether anybody has changed a workload since its stop it reads off `metadata.generation`, with the same `get`. Preflight
/// and `check` ask for each; the shipped manifests grant them.
pub const PERMISSIONS: &[Permission] = &[
    Permission::of(Kind::Deployment, "deployments", "get").required().why(READ.0, READ.1),
    Permission::of(Kind::StatefulSet, "statefulsets", "get").required().why(READ.0, READ.1),
    Permission::of(Kind::Deployment, "deployments/scale", "patch").required().why(SCALE.0, SCALE.1),
    Permission::of(Kind::StatefulSet, "statefulsets/scale", "patch").required().why(SCALE.0, SCALE.1),
    Permission::of(Kind::Deployment, "deployments", "watch").why(WATCH.0, WATCH.1),
    Permission::of(Kind::StatefulSet, "statefulsets", "watch").why(WATCH.0, WATCH.1),
    Permission::beside("", "pods", "list")
        .why("why pods are not ready, and whether the last one is gone", "failures are told without their cause"),
    Permission::beside("", "pods/log", "get")
        .when(When::ShowLogs)
        .why("the last log lines of a failing container", "failures are told without log lines"),
    Permission::beside("events.k8s.io", "events", "list")
        .why("the last events in status", "status shows no events, and a StatefulSet's quota is not told"),
    Permission::beside("events.k8s.io", "events", "create")
        .when(When::Events)
        .why("the record on the object of who asked", "kubectl describe does not show who asked"),
    Permission::beside("autoscaling", "horizontalpodautoscalers", "list")
        .why("naming an autoscaler that owns the replicas", "a HorizontalPodAutoscaler is not told"),
    Permission::beside("keda.sh", "scaledobjects", "list")
        .why("naming a KEDA ScaledObject that owns the replicas", "a ScaledObject is not told"),
    Permission::of(Kind::Deployment, "deployments", "patch").when(When::Restart).why(RESTART.0, RESTART.1),
    Permission::of(Kind::StatefulSet, "statefulsets", "patch").when(When::Restart).why(RESTART.0, RESTART.1),
];

/// Requests that ask at the same time.
const AT_ONCE: usize = 4;

/// One permission, asked for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// What was asked for.
    pub permission: &'static Permission,
    /// For which target; of a permission without a name, the first of its namespace.
    pub target: Target,
    /// The API server's answer, or why there is none.
    pub allowed: Result<bool, ClusterError>,
}

impl Cluster {
    /// Asks the API server for each permission that these targets and the configuration can use, without trying any.
    /// What cannot be limited by name is asked once a namespace. In the order of [`PERMISSIONS`].
    pub async fn access(&self, targets: &[Target]) -> Vec<Access> {
        let mut questions = Vec::new();
        for permission in PERMISSIONS.iter().filter(|permission| self.is_of_use(permission)) {
            for target in askers(permission, targets) {
                questions.push(self.clone().question(permission, target.clone()));
            }
        }
        stream::iter(questions).buffered(AT_ONCE).collect().await
    }

    /// Asks for what an account's login in a Secret needs. `mounted`: it is read as files.
    pub async fn secret_access(&self, namespace: &str, name: &str, mounted: bool) -> Vec<SecretAccess> {
        // A Secret is no workload: only its name and namespace count here.
        let target = Target {
            name: name.to_owned(),
            label: name.to_owned(),
            kind: crate::config::Kind::Deployment,
            namespace: namespace.to_owned(),
            object: name.to_owned(),
        };
        let mut asked = Vec::new();
        for &(verb, lost_without) in SECRET.iter().filter(|(verb, _)| *verb != "get" || !mounted) {
            let allowed = self.may(&target, verb, "", "secrets", true).await;
            asked.push(SecretAccess { verb, lost_without, allowed });
        }
        asked
    }

    async fn question(self, permission: &'static Permission, target: Target) -> Access {
        let Permission { group, resource, verb, named, .. } = *permission;
        let allowed = self.may(&target, verb, group, resource, named).await;
        Access { permission, target, allowed }
    }

    fn is_of_use(&self, permission: &Permission) -> bool {
        match permission.when {
            When::Always | When::Restart => true,
            When::ShowLogs => self.show_logs,
            When::Events => self.write_events,
        }
    }

    /// Asks whether this account may do something to the target, or beside it in its namespace.
    pub(super) async fn may(
        &self,
        target: &Target,
        verb: &str,
        group: &str,
        resource: &str,
        named: bool,
    ) -> Result<bool, ClusterError> {
        let (resource, subresource) = match resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (resource, None),
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    subresource,
                    verb: Some(verb.to_owned()),
                    namespace: Some(target.namespace.clone()),
                    name: named.then(|| target.object.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let asked = Asked::clusterwide("create", "selfsubjectaccessreviews");
        let review = self.call(&asked, api.create(&PostParams::default(), &review)).await?;
        Ok(review.status.is_some_and(|status| status.allowed))
    }
}

/// What a login in a Secret needs, with what is lost without it.
pub const SECRET: [(&str, &str); 2] = [
    ("get", "the login cannot be read; mount the Secret and name the folder (usage.accounts[].mount) to do without"),
    ("patch", "the login cannot be renewed, so nothing is read once its access token ends, after some hours"),
];

/// Whether this account may do something to the Secret of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretAccess {
    /// The verb.
    pub verb: &'static str,
    /// What is lost without it.
    pub lost_without: &'static str,
    /// The API server's word, or why there is none.
    pub allowed: Result<bool, ClusterError>,
}

/// The targets for which a permission is asked.
fn askers<'a>(permission: &Permission, targets: &'a [Target]) -> impl Iterator<Item = &'a Target> + use<'a> {
    let Permission { kind, named, .. } = *permission;
    let first_of_namespace =
        |index: usize, target: &Target| !targets[..index].iter().any(|other| other.namespace == target.namespace);
    targets
        .iter()
        .enumerate()
        .filter(move |(index, target)| {
            kind.is_none_or(|kind| kind == target.kind) && (named || first_of_namespace(*index, target))
        })
        .map(|(_, target)| target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permission_says_what_it_is_for() {
        for permission in PERMISSIONS {
            assert!(!permission.needed_for.is_empty() && !permission.lost_without.is_empty(), "{permission:?}");
        }
        let required: Vec<_> = PERMISSIONS.iter().filter(|p| p.required).map(|p| (p.verb, p.resource)).collect();
        assert_eq!(
            required,
            [
                ("get", "deployments"),
                ("get", "statefulsets"),
                ("patch", "deployments/scale"),
                ("patch", "statefulsets/scale")
            ]
        );
    }

    #[test]
    fn a_namespace_is_asked_once_for_what_has_no_name() {
        let web = super::super::tests::deployment("web");
        let shop = super::super::tests::deployment("shop");
        let far = Target { namespace: "far".into(), ..web.clone() };
        let targets = [web, shop, far];
        let count = |resource: &str| {
            let permission = PERMISSIONS.iter().find(|p| p.resource == resource).unwrap();
            askers(permission, &targets).count()
        };
        assert_eq!(count("deployments"), 3);
        assert_eq!(count("pods"), 2);
        assert_eq!(count("statefulsets"), 0);
    }
}
