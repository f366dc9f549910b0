"""The machines that a study measures on: this one, or the nodes of a cluster that the study names.

A head node sees none of its nodes' devices. So each node describes itself once, in a job (``describe_node.py``), and
plans are made from these records. Standard library only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import host as hosts
from ceilings import records
from ceilings.errors import UserError
from ceilings.host import Host
from ceilings.study.availability import Availability
from ceilings.study.paths import Paths

PIN = "CEILINGS_NODES"
"""Environment variable that carries the described nodes to jobs, so that all of a run plan the same cells."""

Resources = Mapping[str, str | int]

KNOWN_RESOURCES = (
    *("gpu_model", "gpu", "constraint", "machine_type", "slurm_partition", "slurm_account", "slurm_cluster", "qos"),
    *(
        "cluster",
        "clusters",
        "reservation",
        "gres",
        "nodes",
        "tasks",
        "tasks_per_node",
        "tasks_per_gpu",
        "cpus_per_task",
    ),
    *("cpus_per_gpu", "mem_mb", "mem_mb_per_cpu", "disk_mb", "runtime", "mpi"),
)
"""What Snakemake's plug-in for Slurm and ``profiles/kubernetes`` take. They ignore any other name without a word."""

MODEL = re.compile(r"(?<![a-z])(?:rtx|gtx|gb|gh|mi|[abhklmptv])[ _-]?\d+[a-z]?")
"""What names the kind of a GPU in the name of one, such as h100 or rtx 3090."""


@dataclasses.dataclass(frozen=True)
class Node:
    """A kind of node.

    Attributes:
        name: As the study calls it.
        resources: Snakemake's resources by which a job reaches such a node.
        host: What it is; None until it has described itself.
    """

    name: str
    resources: Resources
    host: Host | None = None

    @property
    def gpus(self) -> int | None:
        """GPUs that a job asks for there; None: none."""
        asked = self.resources.get("gpu", 1 if "gpu_model" in self.resources else 0)
        return int(asked) or None


def unknown_resources(config: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Resources of nodes that no executor takes: (place in the study, name, known names)."""
    known = (*KNOWN_RESOURCES, *config["node_resources"])
    for node, resources in config["nodes"].items():
        for name in resources:
            if name not in known:
                yield f"nodes.{node}", name, known


def another_kind(asked: object, gpu: str | None) -> bool:
    """Whether a GPU is certainly not of the kind that was asked for; a site may name its kinds as it likes.

    >>> another_kind("h100", "NVIDIA H200"), another_kind("a100_80", "NVIDIA A100-SXM4-80GB")
    (True, False)
    """
    wanted, found = _models(str(asked)), _models(gpu or "")
    return gpu is None or bool(wanted and found and not wanted & found)


def _models(name: str) -> set[str]:
    return {re.sub(r"[ _-]", "", model) for model in MODEL.findall(name.lower())}


class Machines:
    """This machine, or the nodes that take its place.

    Args:
        here: This machine.
        nodes: Of a cluster; with any, this machine measures nothing.
    """

    def __init__(self, here: Host, nodes: Sequence[Node] = ()) -> None:
        self.here = here
        self.nodes = tuple(nodes)

    @property
    def hosts(self) -> list[Host]:
        """What measures, in the study's order."""
        return [node.host for node in self.nodes if node.host] if self.nodes else [self.here]

    @property
    def names(self) -> list[str]:
        """What the study calls its nodes."""
        return [node.name for node in self.nodes]

    @property
    def undescribed(self) -> list[str]:
        """Nodes of which nothing is known yet."""
        return [node.name for node in self.nodes if node.host is None]

    @property
    def unknown(self) -> Availability:
        """Why cells of undescribed nodes are not measured."""
        names = self.undescribed
        of = f"the node{'s' * (len(names) > 1)} {', '.join(names)}"
        wanted = " ".join(Paths().node(name) for name in names)
        return Availability(
            f"nothing is known yet of {of}", f"make {wanted} with the cluster's profile (docs/clusters.md)"
        )

    def having(self, kind: str) -> list[Host]:
        """Machines with a device of a kind (``cpu`` or ``cuda``), each device once.

        Of machines with one processor those without a GPU come first: a job there leaves no GPU idle.
        """
        found: dict[str, Host] = {}
        for host in sorted(self.hosts, key=lambda host: kind == "cpu" and host.gpu is not None):
            if device := host.device(kind):
                found.setdefault(device, host)
        chosen = {id(host) for host in found.values()}  # two nodes may be equal
        return [host for host in self.hosts if id(host) in chosen]

    def of(self, device: str | None) -> Host:
        """The machine that a device belongs to; this one for a device that no machine here has."""
        found = (host for kind in ("cpu", "cuda") for host in self.having(kind) if host.device(kind) == device)
        return next(found, self.here)

    @property
    def devices(self) -> set[str]:
        """Slugs of all their devices."""
        return {device for host in self.hosts for kind in ("cpu", "cuda") if (device := host.device(kind))}

    def resources(self, device: str) -> Resources:
        """By which a job reaches a device.

        Raises:
            UserError: No node of the study has it.
        """
        host = self.of(device)
        for node in self.nodes:
            if node.host is host and device in self.devices:
                return self.resources_of_node(node.name)
        have = ", ".join(sorted(self.devices)) or "none that has described itself"
        raise UserError(f"no node of the study has {device}; its nodes have {have}")

    def resources_of_node(self, name: str) -> Resources:
        """By which a job reaches a node: as the study says, and one GPU where it names a model of it."""
        node = next(node for node in self.nodes if node.name == name)
        return {**node.resources, **({"gpu": node.gpus} if node.gpus else {})}


def read(config: Mapping[str, Any], here: Host, paths: Paths, environment: Mapping[str, str] = os.environ) -> Machines:
    """The machines of a study: as pinned by the process that planned the run, else as their records say.

    Raises:
        UserError: A record is damaged, or of a node whose GPU is not of the kind that the study asks for.
    """
    known = (
        json.loads(environment[PIN])
        if PIN in environment
        else {
            name: records.read(path, "node")["host"]
            for name in config["nodes"]
            if Path(path := paths.node(name)).exists()
        }
    )
    nodes = [
        Node(name, resources, hosts.from_json(known[name]) if name in known else None)
        for name, resources in config["nodes"].items()
    ]
    for node in nodes:
        _refuse_another_kind(node, paths)
    return Machines(here, nodes)


def _refuse_another_kind(node: Node, paths: Paths) -> None:
    asked = node.resources.get("gpu_model")
    if asked is None or node.host is None:
        return
    found = node.host.gpu.name if node.host.gpu else None
    if another_kind(asked, found):
        raise UserError(
            f"nodes.{node.name}.gpu_model: {asked} is asked for, and the node described itself with "
            f"{found or 'no GPU'}; "
            f"correct it, or delete {paths.node(node.name)} and ask the node again"
        )


def pin(machines: Machines, environment: MutableMapping[str, str] = os.environ) -> None:
    """Hand the described nodes to every job that this process starts."""
    known = {node.name: dataclasses.asdict(node.host) for node in machines.nodes if node.host}
    environment[PIN] = json.dumps(known, sort_keys=True)


def route(rule: Any, machines: Machines, given: Mapping[str, Any]) -> None:
    """Have the jobs of a rule of Snakemake reach the node whose device they name, if they need a device at all.

    Args:
        given: Resources of the rule that the profile or the command line sets: they stay.
    """
    from snakemake.resources import Resource

    if not machines.nodes or "gpu" not in rule.resources or not rule.resources["gpu"].value:
        return

    def asked(name: str) -> Any:
        def value(wildcards: Any) -> str | int | None:
            node = getattr(wildcards, "node", None)
            found = machines.resources_of_node(node) if node else machines.resources(wildcards.device)
            return found.get(name)

        return value

    for name in {"gpu", *(name for node in machines.nodes for name in node.resources)} - set(given):
        rule.resources[name] = Resource(name, asked(name))
