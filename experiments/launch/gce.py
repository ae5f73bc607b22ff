"""Compute Engine: an instance template, and a managed instance group for each slice.

The commands follow https://docs.cloud.google.com/compute/docs/tpus/create-tpu-mig-multi-host-slice:
a workload policy says that the machines of a group are one slice, and a template with flex-start
(or spot) waits in a queue until there are machines for all of it.
"""

import json
import shlex
from typing import Any, NamedTuple

from experiments.launch.request import MEGASCALE_PORT, Request
from jattn.training import UsageError

IMAGES = ("ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e", "ubuntu-os-accelerator-images")
CHIPS_IN_GROUPS = ("v5p", "v6e")  # of which a managed group makes slices, and that image runs


class Machines(NamedTuple):
    """Where and from what machines are made.

    Attributes:
        zone: of Compute Engine.
        install: what `pip install` is given: a wheel, or a URL of the repository.
        hours: after which flex-start takes the machines back; at most 168.
    """

    zone: str
    install: str
    hours: int = 168


def template(request: Request, machines: Machines) -> dict[str, Any]:
    """The instance template, as the API has it: `compute/v1/instanceTemplates`."""
    scheduling: dict[str, Any] = {
        "onHostMaintenance": "TERMINATE",
        "automaticRestart": False,
        "provisioningModel": "SPOT" if request.spot else "FLEX_START",
        "instanceTerminationAction": "DELETE",
    }
    if not request.spot:
        scheduling["maxRunDuration"] = {"seconds": str(3600 * machines.hours)}
    image = f"projects/{IMAGES[1]}/global/images/family/{IMAGES[0]}"
    return {
        "name": request.name,
        "properties": {
            "machineType": request.chip.machine,
            "disks": [
                {
                    "boot": True,
                    "autoDelete": True,
                    "initializeParams": {"sourceImage": image, "diskSizeGb": "100"},
                }
            ],
            "networkInterfaces": [{"network": "global/networks/default"}],
            "serviceAccounts": [
                {
                    "email": "default",
                    "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
                }
            ],
            "scheduling": scheduling,
            "reservationAffinity": {"consumeReservationType": "NO_RESERVATION"},
            "metadata": {"items": [{"key": "startup-script", "value": startup(request, machines)}]},
        },
    }


def startup(request: Request, machines: Machines) -> str:
    """The script that each machine runs when it starts, also after a preemption.

    With several slices, the name of its group says which one it is in, and libtpu joins them at the
    first machine of the first group.
    """
    several = ""
    if request.slices > 1:
        several = f"""\
metadata=http://metadata.google.internal/computeMetadata/v1
group=$(curl -sf -H 'Metadata-Flavor: Google' "$metadata/instance/attributes/created-by")
first=$(gcloud compute instance-groups managed list-instances {request.name}-0 \\
  --zone={shlex.quote(machines.zone)} --format='value(NAME)' | sort | head -n 1)
export MEGASCALE_NUM_SLICES={request.slices}
export MEGASCALE_SLICE_ID="${{group##*-}}"
export MEGASCALE_COORDINATOR_ADDRESS="$first"
export MEGASCALE_PORT={MEGASCALE_PORT}
"""
    return f"""\
#!/usr/bin/env bash
set -euo pipefail
{several}python3 -m venv /opt/jattn
export PATH=/opt/jattn/bin:$PATH
pip install --quiet {shlex.quote("jattn[tpu,gcs] @ " + machines.install)}
{request.script("--distributed")}"""


def policy(request: Request) -> list[str]:
    """The words of the command that makes the policy that a group's machines are one slice."""
    return [
        "gcloud",
        "compute",
        "resource-policies",
        "create",
        "workload-policy",
        request.name,
        "--type=HIGH_THROUGHPUT",
        f"--accelerator-topology={request.grid}",
    ]


def commands(request: Request, machines: Machines, file: str) -> str:
    """The shell script that makes everything; `file` holds the template as JSON.

    Raises:
        UsageError: groups do not make slices of this chip.
    """
    if request.topology.split(":")[0] not in CHIPS_IN_GROUPS:
        raise UsageError(
            f"topology: managed groups make slices of {' and '.join(CHIPS_IN_GROUPS)}, got "
            f"{request.topology!r}; use --target=gke"
        )
    region = machines.zone.rpartition("-")[0]
    project = "$(gcloud config get-value project)"
    api = "https://compute.googleapis.com/compute/v1/projects"
    lines = [
        "#!/usr/bin/env bash",
        "set -euo pipefail",
        f'project="{project}"',
        shlex.join([*policy(request), f"--region={region}"]),
        'curl -sf -X POST -H "Authorization: Bearer $(gcloud auth print-access-token)" '
        f"-H 'Content-Type: application/json' --data-binary @{shlex.quote(file)} "
        f'"{api}/$project/global/instanceTemplates"',
    ]
    for index in range(request.slices):
        group = f"{request.name}-{index}"
        words = [
            "gcloud",
            "compute",
            "instance-groups",
            "managed",
            "create",
            group,
            f"--zone={machines.zone}",
            f"--template={request.name}",
            f"--size={request.hosts}",
            "--default-action-on-vm-failure=repair",
        ]
        if not request.spot:
            words.append("--target-size-policy-mode=bulk")
        policy_name = f"projects/$project/regions/{region}/resourcePolicies/{request.name}"
        lines.append(f'{shlex.join(words)} --workload-policy="{policy_name}"')
    return "\n".join(lines) + "\n"


def clean_up(request: Request, machines: Machines) -> str:
    """The commands that take everything away again."""
    region = machines.zone.rpartition("-")[0]
    groups = " ".join(f"{request.name}-{index}" for index in range(request.slices))
    return (
        f"gcloud compute instance-groups managed delete {groups} --zone={machines.zone} --quiet\n"
        f"gcloud compute instance-templates delete {request.name} --quiet\n"
        f"gcloud compute resource-policies delete {request.name} --region={region} --quiet\n"
    )


def as_json(request: Request, machines: Machines) -> str:
    """The template as text."""
    return json.dumps(template(request, machines), indent=2) + "\n"
