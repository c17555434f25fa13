//! The API server, the permissions and the targets.

use super::Finding;
use crate::cluster::{Access, Cluster, ClusterError, Target};
use crate::config::Config;
use crate::daemon;

pub(super) async fn findings(config: &Config) -> Vec<Finding> {
    let cluster = match Cluster::connect(&config.kubernetes).await {
        Ok(cluster) => cluster,
        Err(error) => {
            let remedy = "in a pod, mount the ServiceAccount's token; elsewhere set KUBECONFIG or kubernetes.context";
            return vec![Finding::failure("kubernetes", "client", format!("{error:#}"), remedy)];
        }
    };
    match cluster.version().await {
        Ok(version) => {
            let mut findings = vec![Finding::good("kubernetes", "API server", version)];
            let targets: Vec<Target> = config.targets.iter().map(daemon::target).collect();
            findings.extend(cluster.access(&targets).await.iter().map(permission));
            for target in &targets {
                findings.push(workload(&cluster, target).await);
            }
            findings
        }
        Err(error) => vec![Finding::failure("kubernetes", "API server", error.to_string(), way_out(&error))],
    }
}

fn way_out(error: &ClusterError) -> &'static str {
    match error {
        ClusterError::Unauthorized(_) => {
            "the token is wrong or has expired: renew the kubeconfig or the ServiceAccount's token"
        }
        ClusterError::Timeout | ClusterError::Unreachable(_) => {
            "is the address right, and does a NetworkPolicy or a proxy stand between?"
        }
        ClusterError::Forbidden(_) => "bind the Role of k8s/base to the ServiceAccount",
        _ => "ask whoever runs the API server",
    }
}

fn permission(access: &Access) -> Finding {
    let Access { permission, target, allowed } = access;
    let name = if permission.named { format!("/{}", target.object) } else { String::new() };
    let subject = format!("{} {}{name} in {}", permission.verb, permission.resource, target.namespace);
    match allowed {
        Ok(true) => Finding::good("permissions", subject, permission.needed_for),
        Ok(false) if permission.required => Finding::failure(
            "permissions",
            subject,
            format!("missing: {}", permission.lost_without),
            "apply k8s/base, or add it to the Role that is bound to this account",
        ),
        Ok(false) => Finding::skipped("permissions", subject, format!("not given: {}", permission.lost_without)),
        Err(error) => Finding::warning("permissions", subject, format!("not known: {error}"), way_out(error)),
    }
}

async fn workload(cluster: &Cluster, target: &Target) -> Finding {
    let subject = target.name.clone();
    let (workload, mut owners) = tokio::join!(cluster.workload(target), cluster.owners(target));
    match workload {
        Ok(workload) => {
            let detail = format!("{target}: {}/{} ready", workload.ready, workload.desired);
            owners.extend(workload.managed_by);
            if owners.is_empty() {
                return Finding::good("targets", subject, detail);
            }
            let remedy = "let it leave the replicas alone (Argo CD: ignoreDifferences; Flux: leave spec.replicas out; an \
                          autoscaler: delete or pause it), or it may undo `start` and `stop`";
            Finding::warning(
                "targets",
                subject,
                format!("{detail}; {} owns its replicas", owners.join(" and ")),
                remedy,
            )
        }
        Err(error @ ClusterError::NotFound(_)) => Finding::failure(
            "targets",
            subject,
            error.to_string(),
            "compare kind, namespace and object in [[targets]] with `kubectl get deploy,statefulset -A`",
        ),
        Err(error) => Finding::failure("targets", subject, error.to_string(), way_out(&error)),
    }
}
