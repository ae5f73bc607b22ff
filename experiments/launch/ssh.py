"""Machines that are there: one command for each over ssh."""

import shlex
from collections.abc import Sequence

from experiments.launch.request import MEGASCALE_PORT, PORT, Request
from jattn.training import UsageError


def commands(request: Request, hosts: Sequence[str], folder: str) -> str:
    """The shell script that starts the run on all hosts and waits for it.

    On each host the run is started again as often as it may be, and goes on from the workdir; the
    first one is where the processes meet.

    Args:
        request: what to run.
        hosts: names that `ssh` knows, those of the first slice first.
        folder: of a checkout with its environment `.venv`, the same on all hosts.

    Raises:
        UsageError: there are too few or too many hosts.
    """
    count = request.hosts * request.slices
    if len(hosts) != count:
        raise UsageError(
            f"hosts: {request.slices} x {request.topology} has {count} hosts, "
            f"{request.chip.host} chips each; got {len(hosts)}"
        )
    lines = ["#!/usr/bin/env bash", "set -uo pipefail", "status=0", "pids=()"]
    for index, host in enumerate(hosts):
        address = hosts[0].rpartition("@")[2]
        joined = [
            "--distributed",
            f"--coordinator_address={address}:{PORT}",
            f"--num_processes={count}",
            f"--process_id={index}",
        ]
        several = ""
        if request.slices > 1:
            several = (
                f"export MEGASCALE_NUM_SLICES={request.slices}\n"
                f"export MEGASCALE_SLICE_ID={index // request.hosts}\n"
                f"export MEGASCALE_COORDINATOR_ADDRESS={shlex.quote(address)}\n"
                f"export MEGASCALE_PORT={MEGASCALE_PORT}\n"
            )
        script = (
            f"cd {shlex.quote(folder)} || exit 2\nPATH=$PWD/.venv/bin:$PATH\n{several}"
            f"{request.script(*joined)}"
        )
        lines.append(f"ssh {shlex.quote(host)} {shlex.quote(script)} &")
        lines.append("pids+=($!)")
    lines += [
        'for pid in "${pids[@]}"; do',
        '  wait "$pid" || status=$?',
        "done",
        'exit "$status"',
    ]
    return "\n".join(lines) + "\n"
