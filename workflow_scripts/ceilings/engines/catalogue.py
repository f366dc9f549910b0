"""The builders of engines. Standard library only: read while the workflow is parsed."""

from __future__ import annotations

import dataclasses

from ceilings.packages import versions


@dataclasses.dataclass(frozen=True)
class Builder:
    """A generation of TensorRT. Its bindings, its libraries and its engines go together and with no other generation.

    Attributes:
        name: As paths and tables call it.
        major: First number of its versions.
        distributions: Packages that hold its Python bindings; the first one installed with that major number counts.
        modules: Names under which these are imported.
        capabilities: CUDA compute capabilities that it builds for by name, without such a GPU at hand; empty: it
            builds for the GPU at hand only, whose kernels it times.
        timing_cache: Whether it keeps what it timed for the next build.
    """

    name: str
    major: int
    distributions: tuple[str, ...]
    modules: tuple[str, ...]
    capabilities: tuple[tuple[int, int], ...] = ()
    timing_cache: bool = True

    @property
    def needs_gpu(self) -> bool:
        """Whether it can build on a machine with a GPU only."""
        return not self.capabilities

    def installed(self) -> str | None:
        """The version of its bindings here; None if they are not installed, or of another generation only."""
        present = versions(self.distributions).values()
        return next((version for version in present if version and int(version.split(".")[0]) == self.major), None)


_TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu13-bindings", "tensorrt-cu12", "tensorrt-cu12-bindings")
_RTX = ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings")

_ALL = (
    Builder("tensorrt10", 10, _TENSORRT, ("tensorrt", "tensorrt_bindings")),
    Builder("tensorrt11", 11, _TENSORRT, ("tensorrt", "tensorrt_bindings")),
    Builder(
        "tensorrt-rtx",
        1,
        _RTX,
        ("tensorrt_rtx", "tensorrt_rtx_bindings"),
        capabilities=((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)),
        timing_cache=False,  # its calls are still there, and do nothing
    ),
)

BUILDERS: dict[str, Builder] = {builder.name: builder for builder in _ALL}
"""Every builder by name."""

TARGET = "sm-"
"""How the slug of a device begins that stands for a compute capability and not for a GPU, such as ``sm-8.9``."""


def target_slug(capability: tuple[int, int]) -> str:
    """The device slug of engines that were built for a compute capability rather than for a GPU.

    >>> target_slug((8, 9))
    'sm-8.9'
    """
    return f"{TARGET}{capability[0]}.{capability[1]}"


def target_capability(slug: str) -> tuple[int, int] | None:
    """The compute capability that a device slug stands for; None for a GPU's own slug.

    >>> target_capability("sm-12.0"), target_capability("nvidia-h200"), target_capability("sm-x")
    ((12, 0), None, None)
    """
    numbers = slug.removeprefix(TARGET).split(".")
    if not slug.startswith(TARGET) or len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])
