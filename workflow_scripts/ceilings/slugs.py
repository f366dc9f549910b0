"""Names of devices as they stand in paths. Standard library only."""

from __future__ import annotations

import re


def slug(name: str) -> str:
    """A name as it stands in paths: lower case, hyphens, no vendor decoration.

    >>> slug("NVIDIA H200"), slug("AMD EPYC 9454 48-Core Processor"), slug("Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz")
    ('nvidia-h200', 'amd-epyc-9454', 'intel-xeon-gold-6338')
    """
    name = re.sub(r"\((r|tm|c)\)|@.*|\b\d+-core\b|\bprocessor\b|\bcpu\b", " ", name.lower())
    return re.sub(r"[^a-z0-9.]+", "-", name).strip("-.") or "unknown"


def gpu_name(name: str) -> str:
    """An NVIDIA GPU's name with the vendor's before it, which some drivers leave out.

    >>> gpu_name("H200"), gpu_name("NVIDIA H200")
    ('NVIDIA H200', 'NVIDIA H200')
    """
    return name if name.upper().startswith("NVIDIA") else f"NVIDIA {name}"
