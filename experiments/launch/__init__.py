"""Starts a run on every host of a TPU pod, and again after it was preempted.

    python -m experiments.launch --experiment=in_context_regression \\
        --config=in_context_regression:paper --topology=v5e:16x16 --target=gke \\
        --workdir=gs://BUCKET/icl --image=REGION-docker.pkg.dev/PROJECT/jattn/jattn:1 --dry-run

Targets: `gke` writes a JobSet, one job a slice and one pod a host, for `kubectl`; `gce` an instance
template and, for each slice, a managed instance group that waits for its machines (flex-start), for
`gcloud`; `ssh` the commands for machines that are there, `--hosts=a,b,...`, one line for each.
With --dry-run everything is printed and nothing done. A run that was preempted is started again and
goes on from its workdir, which all hosts must reach.
"""
