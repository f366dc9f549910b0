#!/usr/bin/env python3
"""Write down what machine this node of a cluster is: its processor, its cores for a job, its GPU."""

import argparse
import dataclasses
from pathlib import Path

from ceilings import host as hosts
from ceilings import records
from ceilings.errors import UserError
from ceilings.program import main
from ceilings.study.machines import another_kind


def work(arguments: argparse.Namespace) -> None:
    host = hosts.detect({})
    if arguments.gpu and host.gpu is None:
        raise UserError(
            f"{arguments.node} has no GPU for this job: {host.gpu_problem}; name the resources that bring one in "
            f"nodes.{arguments.node} of the study"
        )
    if arguments.gpu_model and host.gpu and another_kind(arguments.gpu_model, host.gpu.name):
        raise UserError(
            f"{arguments.node} has a {host.gpu.name}, and nodes.{arguments.node} asks for {arguments.gpu_model}; "
            "name the resources that bring one in the study"
        )
    records.write(arguments.output, "node", {"node": arguments.node, "host": dataclasses.asdict(host)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node", required=True, help="what the study calls it")
    parser.add_argument("--gpu", action="store_true", help="it must have a GPU")
    parser.add_argument("--gpu-model", help="the kind of GPU that it must have")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
