#!/usr/bin/env python3
"""Run Snakemake's jobs as Jobs of Kubernetes, with one volume that all of them share.

For the executor cluster-generic: ``submit JOBSCRIPT`` prints the name of a new Job, ``status NAME`` says ``running``,
``success`` or ``failed``, ``cancel NAME...`` deletes. It needs kubectl. Standard library only.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OURS = {"app": "ceilings"}
"""Label of every pod."""

SELECTORS = {"gpu_model": "nvidia.com/gpu.product", "machine_type": "node.kubernetes.io/instance-type"}
"""Resources that choose a node, by the label of the node that they ask for."""


def manifest(properties: Mapping[str, Any], command: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The Job for a job of Snakemake.

    Args:
        properties: What Snakemake says of the job: ``rule``, ``threads``, ``resources``.
        command: What its pod runs in the working folder.
        arguments: ``image``, ``claim`` and ``mount`` of the program.
    """
    resources = properties["resources"]
    limits, requests = {}, {}
    if gpus := resources.get("gpu"):
        limits["nvidia.com/gpu"] = str(gpus)  # Kubernetes takes it as the request too
    if memory := resources.get("mem_mb"):
        limits["memory"] = requests["memory"] = f"{memory}M"
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "nodeSelector": {label: resources[name] for name, label in SELECTORS.items() if resources.get(name)},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}] if gpus else [],
        "securityContext": {"runAsUser": os.getuid(), "runAsGroup": os.getgid()},
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": arguments.claim}}],
    }
    if resources.get("alone"):
        # Both ways: it goes to no node with a pod of ours, and no pod of ours comes to its node.
        neighbours = {"labelSelector": {"matchLabels": OURS}, "topologyKey": "kubernetes.io/hostname"}
        pod["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [neighbours]}}
    else:
        requests["cpu"] = str(properties["threads"])
    pod["containers"] = [
        {
            "name": "job",
            "image": arguments.image,
            "command": ["/bin/sh", "-c", command],
            "workingDir": str(Path.cwd()),
            "env": [
                {"name": name, "value": value}
                for name, value in sorted(os.environ.items())
                if name.startswith("CEILINGS_") and name != "CEILINGS_PIPELINE"
            ],
            "resources": {"limits": limits, "requests": requests},
            "volumeMounts": [{"name": "shared", "mountPath": arguments.mount}],
        }
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"ceilings-{_plain(properties['rule'])}-{uuid.uuid4().hex[:12]}", "labels": OURS},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 86400,
            "activeDeadlineSeconds": 60 * int(resources.get("runtime", 60)),
            "template": {"metadata": {"labels": OURS}, "spec": pod},
        },
    }


def submit(arguments: argparse.Namespace) -> None:
    """Create the Job of a job script, and print its name."""
    script = arguments.jobscript.read_text(encoding="utf-8")
    found = re.search(r"^# properties = (.*)$", script, re.MULTILINE)
    if found is None:
        sys.exit(f"error: {arguments.jobscript} has no line '# properties = ...'; give a job script of Snakemake")
    job = manifest(json.loads(found[1]), script, arguments)
    kubectl("create", "--filename", "-", text=json.dumps(job))
    print(job["metadata"]["name"])


def status(arguments: argparse.Namespace) -> None:
    """Print what became of a Job."""
    shown = kubectl("get", "job", arguments.name, "--ignore-not-found", "--output", "json")
    conditions = json.loads(shown)["status"].get("conditions", []) if shown.strip() else [{"type": "Failed"}]
    true = {one["type"] for one in conditions if one.get("status", "True") == "True"}
    print("success" if "Complete" in true else "failed" if "Failed" in true else "running")


def cancel(arguments: argparse.Namespace) -> None:
    """Delete Jobs with their pods."""
    kubectl("delete", "job", "--ignore-not-found", "--wait=false", *arguments.names)


def kubectl(*words: str, text: str = "") -> str:
    """What kubectl prints; ends this program with its message where it fails."""
    done = subprocess.run(["kubectl", *words], input=text, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def _plain(name: str) -> str:
    """A name as Kubernetes takes it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("submit", help="create the Job of a job script")
    one.add_argument("--image", required=True, help="of the container: with the environment of this project")
    one.add_argument("--claim", required=True, help="persistent volume claim that all pods share")
    one.add_argument("--mount", required=True, help="where it lies in each pod; the checkout lies below")
    one.add_argument("jobscript", type=Path)
    one.set_defaults(work=submit)
    one = commands.add_parser("status", help="say what became of a Job")
    one.add_argument("name")
    one.set_defaults(work=status)
    one = commands.add_parser("cancel", help="delete Jobs")
    one.add_argument("names", nargs="+")
    one.set_defaults(work=cancel)
    parsed = parser.parse_args()
    parsed.work(parsed)
