"""Runs the predecessor outside of a cluster: with the token and the bundle of a ServiceAccount from the files that the
arguments name, instead of those that Kubernetes mounts into a pod."""

import sys

from kubernetes.config import incluster_config

incluster_config.SERVICE_TOKEN_FILENAME, incluster_config.SERVICE_CERT_FILENAME = sys.argv[1:]

from openclaw_k8s_toggle_operator.__main__ import main  # noqa: E402: it binds the names above when it is asked

main()
