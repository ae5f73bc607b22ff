"""A JobSet for Google Kubernetes Engine: one job a slice, one pod a host.

Fields are those of https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2 and labels those of
https://cloud.google.com/kubernetes-engine/docs/how-to/tpu-multislice.
"""

from typing import Any

from experiments.launch.request import MEGASCALE_PORT, PORT, Request

TOPOLOGY = "alpha.jobset.sigs.k8s.io/exclusive-topology"


def jobset(request: Request, image: str, service_account: str = "default") -> dict[str, Any]:
    """The JobSet as plain dicts and lists.

    A pod that is preempted fails its job, which starts the whole set again: processes of one run
    start together. Status 2 (bad input) and 3 or 4 (claims that do not hold, losses that are not
    finite) end it for good, for it would end so again.

    Args:
        request: what to run.
        image: a container that has jattn, `experiments` and its extras tpu and gcs.
        service_account: of Kubernetes, that may write to the workdir.
    """
    selector = {
        "cloud.google.com/gke-tpu-accelerator": request.chip.accelerator,
        "cloud.google.com/gke-tpu-topology": request.grid,
    }
    pod: dict[str, Any] = {
        "serviceAccountName": service_account,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 120,  # to save, after SIGTERM
        "nodeSelector": selector,
        "containers": [
            {
                "name": "run",
                "image": image,
                "command": request.command("--distributed"),
                "ports": [{"containerPort": PORT}, {"containerPort": MEGASCALE_PORT}],
                "resources": {
                    "requests": {"google.com/tpu": request.chip.host},
                    "limits": {"google.com/tpu": request.chip.host},
                },
            }
        ],
    }
    if request.slices > 1:  # faster between slices; Autopilot clusters do not have it
        pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    if request.spot:
        selector["cloud.google.com/gke-spot"] = "true"
        pod["tolerations"] = [
            {
                "key": "cloud.google.com/gke-spot",
                "operator": "Equal",
                "value": "true",
                "effect": "NoSchedule",
            }
        ]
    final = {
        "action": "FailJob",
        "onExitCodes": {"containerName": "run", "operator": "In", "values": [2, 3, 4]},
    }
    job = {
        "parallelism": request.hosts,
        "completions": request.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [final]},
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": request.name,
            "annotations": {TOPOLOGY: "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": request.restarts,
                "rules": [
                    {
                        "name": "noRestart",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {"name": "slice", "replicas": request.slices, "template": {"spec": job}}
            ],
        },
    }
