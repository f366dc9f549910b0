"""What of the catalogue cannot run on this machine, asked for or not: so that nobody is advised to try it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ceilings.host import Host
from ceilings.runtimes.catalogue import RUNTIMES, Runtime
from ceilings.study.availability import Availability

NO_BF16 = Availability("the processor has no BF16 instructions", "measure it on one with AVX512-BF16 or AMX")


def lacking(
    hosts: Sequence[Host], models: Iterable[str], available: Callable[[str, str, str, Host], Availability]
) -> list[dict[str, Any]]:
    """Reason, remedy and cells (``runtime/model/precision``) of what runs on none of the devices that there are.

    Args:
        hosts: The machines that measure.
        available: Of (runtime, model, precision, machine).
    """
    groups: dict[Availability, list[str]] = {}
    for model in models:
        for spec in RUNTIMES.values():
            having = [host for host in hosts if host.device(spec.device)]
            if spec.engine != "static" or not having:
                continue
            for precision in spec.precisions:
                found = [_can(spec, precision, host, available(spec.name, model, precision, host)) for host in having]
                if not any(found):
                    groups.setdefault(found[0], []).append(f"{spec.name}/{model}/{precision}")
    return [{"reason": one.reason, "remedy": one.remedy, "cells": cells} for one, cells in groups.items()]


def _can(spec: Runtime, precision: str, host: Host, available: Availability) -> Availability:
    slow = spec.device == "cpu" and precision == "bf16" and not host.multiplies_bf16
    return NO_BF16 if available and slow else available
