"""Names of devices as they stand in paths. Standard library only."""

from __future__ import annotations

import hashlib
import re

GIB = 1 << 30

MEMORIES = (
    *(1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 16, 18, 20, 22, 24, 32, 36, 40, 48),
    *(64, 72, 80, 94, 96, 128, 141, 144, 180, 192, 256, 288),
)
"""GB that cards have. Drivers keep up to a tenth back, each version another part: what CUDA says is rounded up."""


def slug(name: str) -> str:
    """A name as it stands in paths: lower case, hyphens, no vendor decoration.

    Spaces, hyphens, underscores, commas and brackets do not tell names apart. Any other character does, by a digest.

    >>> slug("NVIDIA H200"), slug("AMD EPYC 9454 48-Core Processor"), slug("Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz")
    ('nvidia-h200', 'amd-epyc-9454', 'intel-xeon-gold-6338')
    >>> slug("NVIDIA X 1/2"), slug("NVIDIA X 1-2")
    ('nvidia-x-1-2-f132', 'nvidia-x-1-2')
    """
    plain = re.sub(r"\((r|tm|c)\)|@.*|\b\d+-core\b|\bprocessor\b|\bcpu\b", " ", name.lower())
    short = re.sub(r"[^a-z0-9.]+", "-", plain).strip("-.") or "unknown"
    if re.search(r"[^a-z0-9._,() \t-]", plain):
        short += f"-{hashlib.sha256(plain.encode()).hexdigest()[:4]}"
    return short


def gpu_name(name: str) -> str:
    """An NVIDIA GPU's name with the vendor's before it, which some drivers leave out.

    >>> gpu_name("H200"), gpu_name("NVIDIA H200")
    ('NVIDIA H200', 'NVIDIA H200')
    """
    return name if name.upper().startswith("NVIDIA") else f"NVIDIA {name}"


def gpu_slug(name: str, memory_bytes: int) -> str:
    """A GPU's name with its memory, which cards of one name differ in. Some names state it; a slice's profile does.

    >>> gpu_slug("NVIDIA H100 80GB HBM3", 79 * GIB), gpu_slug("NVIDIA GeForce RTX 3080", 12 * GIB - 5)
    ('nvidia-h100-80gb-hbm3', 'nvidia-geforce-rtx-3080-12gb')
    >>> gpu_slug("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9 * GIB)
    'nvidia-h100-80gb-hbm3-mig-1g.10gb'
    """
    known = next((size for size in MEMORIES if memory_bytes <= size * GIB), -(-memory_bytes // GIB))
    stated = re.search(rf"\b{known}\s?GB?\b|\bMIG\b", name, re.IGNORECASE)
    return slug(name) if stated else f"{slug(name)}-{known}gb"
