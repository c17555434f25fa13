//! The pretend cluster as kubectl sees it, built beside the control plane of the tests.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::server;
use crate::places;

const DEADLINE: Duration = Duration::from_mins(1);

/// Runs kubectl and gives what it says.
async fn kubectl(kubeconfig: &Path, arguments: &str) -> String {
    let mut command = Command::new(places::control_plane_binary("kubectl"));
    command.arg("--kubeconfig").arg(kubeconfig).args(arguments.split(' ')).kill_on_drop(true);
    // Its cache of what a server offers goes by the address: another pretend cluster may have had it before.
    command.env("KUBECACHEDIR", kubeconfig.with_file_name("cache"));
    let output = tokio::time::timeout(DEADLINE, command.output()).await.expect("it ends").expect("it runs");
    let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "kubectl {arguments}: {complaints}{said}");
    said.into_owned()
}

#[tokio::test]
async fn kubectl_reads_and_moves_it_as_it_does_a_real_one() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    server::write_kubeconfig(&kubeconfig, server::start().await.unwrap()).unwrap();
    let run = async |arguments: &str| kubectl(&kubeconfig, arguments).await;

    let listed = run("get deployments").await;
    assert!(listed.contains("NAME") && listed.contains("website") && listed.contains("0/0"), "{listed}");
    assert_eq!(run("get deployment website --output=jsonpath={.spec.replicas}").await, "0");
    assert!(run("scale deployment website --replicas=2").await.contains("scaled"));
    assert!(run("rollout status deployment/website --timeout=50s").await.contains("successfully rolled out"));
    assert!(run("get deployments website").await.contains("2/2"));
    let pods = run("get pods --selector=app=website").await;
    assert_eq!(pods.matches("Running").count(), 2, "{pods}");
    let described = run("describe deployment website").await;
    assert!(described.contains("2 available"), "{described}");
}
