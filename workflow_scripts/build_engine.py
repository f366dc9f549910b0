#!/usr/bin/env python3
"""Build a TensorRT engine for a GPU or a compute capability, or take over one that the study names."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from ceilings import host as hosts
from ceilings import turns
from ceilings.engines import produce
from ceilings.engines.catalogue import BUILDERS, target_capability, target_slug
from ceilings.errors import UserError
from ceilings.program import json_argument, main


def work(arguments: argparse.Namespace) -> None:
    builder = BUILDERS[arguments.spec["builder"]]
    host = hosts.detect({})
    here = host.device("cuda")
    if arguments.device != here and (builder.needs_gpu or target_capability(arguments.device) is None):
        raise UserError(
            f"{arguments.output} is for {arguments.device}, but this machine's GPU is {here or 'none'}; build it there"
            + ("" if builder.needs_gpu else ", or for a compute capability: the device sm-8.9, for example")
        )
    if not builder.needs_gpu and tuple(arguments.spec["capability"]) not in builder.capabilities:
        known = ", ".join(map(target_slug, builder.capabilities))
        raise UserError(f"{builder.name} does not build for {arguments.device}; it builds for {known}")
    # A builder that has a GPU times kernels on it.
    with turns.turn(host.uuid("cuda")) if builder.needs_gpu else contextlib.nullcontext():
        record = produce.produce(
            arguments.spec, arguments.graph, arguments.output, precision=arguments.precision, device=arguments.device
        )
    if record["status"] == "ok":
        layers = " + ".join(map(str, record["summary"]["layers"])) or "unknown"
        outcome = f"{record['engine_bytes'] / 1e6:.1f} MB, {layers} layers, by {record['built_by']}"
    else:
        outcome = f"no engine ({record['failure']['kind']}): {record['failure']['message']}"
    print(f"{arguments.output}: {outcome}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--device", required=True, help="slug of the GPU at hand, or of a compute capability: sm-8.9")
parser.add_argument("--precision", required=True)
parser.add_argument("--graph", type=Path, required=True, help="typed ONNX graph")
parser.add_argument("--spec", type=json_argument, required=True, help="builder, profiles, settings, target")
parser.add_argument("--output", type=Path, required=True, help="x.engine; beside it come x.json and so on")

if __name__ == "__main__":
    main(work, parser)
