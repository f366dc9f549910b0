"""What of the catalogue cannot run on this machine, asked for or not: so that nobody is advised to try it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ceilings import host as hosts
from ceilings.host import Host
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.availability import Availability

NO_BF16 = Availability("the processor has no BF16 instructions", "measure it on one with AVX512-BF16 or AMX")


def lacking(
    host: Host, models: Iterable[str], available: Callable[[str, str, str], Availability]
) -> list[dict[str, Any]]:
    """Reason, remedy and cells (``runtime/model/precision``) of what cannot run, on devices that the machine has.

    Args:
        available: Of (runtime, model, precision).
    """
    groups: dict[Availability, list[str]] = {}
    for model in models:
        for spec in RUNTIMES.values():
            if spec.engine != "static" or host.device(spec.device) is None:
                continue
            for precision in spec.precisions:
                can = available(spec.name, model, precision)
                if can and spec.device == "cpu" and precision == "bf16" and not hosts.multiplies_bf16():
                    can = NO_BF16
                if not can:
                    groups.setdefault(can, []).append(f"{spec.name}/{model}/{precision}")
    return [{"reason": one.reason, "remedy": one.remedy, "cells": cells} for one, cells in groups.items()]
