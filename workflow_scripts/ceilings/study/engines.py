"""The engines of a study: which one a cell runs on, and what each depends on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import environment
from ceilings.engines import libraries, profiles
from ceilings.engines.catalogue import BUILDERS, target_capability, target_slug
from ceilings.engines.profiles import Profile
from ceilings.errors import UserError
from ceilings.runtimes.catalogue import PRECISIONS, Runtime
from ceilings.runtimes.settings import ENGINE
from ceilings.study.availability import installed
from ceilings.study.config import nearest
from ceilings.study.machines import Machines
from ceilings.study.paths import Paths
from ceilings.study.study_models import StudyModels
from ceilings.workload.shape import Shape


class Engines:
    """The engines that a study's cells run on.

    Args:
        config: The study, checked, with its defaults.
        machines: What would build them.
        paths: The results tree.
        models: The models of the study.
    """

    def __init__(self, config: Mapping[str, Any], machines: Machines, paths: Paths, models: StudyModels) -> None:
        self.settings: Mapping[str, Any] = config["engines"]
        self.models = models
        self.machines = machines
        self.paths = paths

    def path(self, spec: Runtime, model: str, precision: str, shapes: Sequence[Shape], device: str) -> str:
        """The engine that a cell runs on, less its suffix: the first one that takes all shapes of its requests.

        Where none does it is the first one: that cell then fails with the reason, and no other does.

        Raises:
            UserError: The study defines no engine for the runtime.
        """
        name = str(shapes[0].full)
        if spec.engine != "static":
            known = self._choices(spec, model, precision)
            if not known:
                raise UserError(self._no_engine(spec, model, precision))
            taking = (name for name, ranges in known.items() if _all_covered(ranges, shapes))
            name = next(taking, next(iter(known)))
        return self.paths.engine(device, spec.builder or "", model, precision, name)

    @staticmethod
    def cache_name() -> str:
        """How paths call the engines that ONNX Runtime keeps: by its version, since another one builds anew."""
        (version,) = installed(("onnxruntime-gpu",)).values()
        return f"onnxruntime-tensorrt-{version or 'none'}"

    def cache(self, model: str, precision: str, shape: Shape, device: str) -> str:
        """The engine that ONNX Runtime's provider builds for a cell and keeps, less the suffix of its record."""
        return self.paths.engine(device, self.cache_name(), model, precision, str(shape.full))

    def cache_slice(self) -> str:
        """What such an engine depends on beside its graph and its shape."""
        kept = {key: self.settings.get(key) for key in ("optimization_level", "workspace_mb")}
        versions = {"onnxruntime": self.cache_name(), "tensorrt": libraries.version("libnvinfer.so.10")}
        variables = environment.recorded(environment.shaping())
        return json.dumps({**kept, **versions, "variables": variables}, sort_keys=True)

    def files(self, builder: str, name: str) -> list[str]:
        """Files of the user that an engine is made from, by the name of its profile or its own."""
        external = self.settings["external"].get(name)
        if external:
            return [external["path"]]
        cache = self.settings.get("timing_cache")
        return [cache] if cache and BUILDERS[builder].timing_cache else []

    @property
    def targets(self) -> list[str]:
        """Slugs of the compute capabilities that engines are built for without such a GPU; none without the builder."""
        return list(self.settings["targets"]) if BUILDERS["tensorrt-rtx"].installed() else []

    def slice(self, device: str, builder: str, model: str, precision: str, name: str) -> str:
        """What an engine depends on beside its graph: builder, settings, profiles, target.

        Args:
            device: Slug of a GPU, or of a compute capability such as ``sm-8.9``.
            builder: A name of ``ceilings.engines.catalogue``.
            model: Whose engine: a profile leaves out the axes that a model has in one size only.
            precision: Of the engine; tf32 is fp32's graph with TF32 allowed.
            name: A shape such as ``b1-s128``, or a profile or an external engine of the study.

        Raises:
            UserError: No such profile.
        """
        found = self.machines.of(device).gpu
        gpu = found if found and found.slug == device else None
        shared = {
            "name": name,
            "builder": builder,
            "version": BUILDERS[builder].installed(),
            # Kernels that were timed belong to one GPU; those that were not, to every GPU of a capability.
            "gpu": gpu.name if gpu and BUILDERS[builder].needs_gpu else None,
            "capability": gpu.capability if gpu else target_capability(device),
        }
        if name in self.settings["external"]:
            return json.dumps({**shared, "external": self.settings["external"][name]}, sort_keys=True)
        keys = ("optimization_level", "workspace_mb", "version_compatible", "hardware_compatibility", "timing_cache")
        settings = {key: self.settings.get(key) for key in keys}
        if not BUILDERS[builder].needs_gpu:
            # Its engines run on every GPU of their capability already; it times nothing and ships no lean runtime.
            settings |= {"hardware_compatibility": "none", "timing_cache": None, "version_compatible": False}
        ranges = [profile.to_json() for profile in self._profiles(name, model)]
        return json.dumps({**shared, **settings, "tf32": precision == "tf32", "profiles": ranges}, sort_keys=True)

    def problems(self, asked: Iterable[tuple[str, Runtime, str, str]]) -> Iterator[str]:
        """What the study asks for and cannot be.

        Args:
            asked: (sweep, runtime, model, precision) of its cells.
        """
        defined = {f"profiles.{name}": ranges for name, ranges in self.settings["profiles"].items()}
        defined |= {f"external.{name}": one["profiles"] for name, one in self.settings["external"].items()}
        for key, ranges in defined.items():
            for index, profile in enumerate(profiles.read(ranges)):
                if problem := profile.problem():
                    yield f"engines.{key}.{index}: {problem}"
            if profiles.static(key.split(".", 1)[1]):
                yield f"engines.{key}: names such as b1-s128 stand for that one shape; choose another"
        for name, external in self.settings["external"].items():
            if name in self.settings["profiles"]:
                yield f"engines.external.{name}: engines.profiles has that name too; choose another"
            for key, names in (("model", list(self.models.config["models"])), ("precision", list(PRECISIONS))):
                value = external[key]
                if value not in names:
                    yield f"engines.external.{name}.{key}: {value!r} is unknown, {nearest(value, names)}"
        for target in self.settings["targets"]:
            known = [target_slug(capability) for capability in BUILDERS["tensorrt-rtx"].capabilities]
            if target not in known:
                yield f"engines.targets: tensorrt-rtx does not build for {target}; allowed: {', '.join(known)}"
        cache = self.settings.get("timing_cache")
        if cache and Path(self.paths.results).resolve() in Path(cache).resolve().parents:
            yield f"engines.timing_cache: {cache} is made from the builds that would start from it; name a copy of it"
        for sweep, spec, model, precision in asked:
            if spec.engine != "static" and not self._choices(spec, model, precision):
                yield f"sweeps.{sweep}.runtimes: {self._no_engine(spec, model, precision)}"

    def _profiles(self, name: str, model: str) -> list[Profile]:
        if profiles.static(name):
            return Profile.of(Shape.parse(name))
        known = self.settings["profiles"]
        if name not in known:
            hint = nearest(name, known) if known else "engines.profiles is empty"
            raise UserError(f"no optimisation profile is called {name!r}, {hint}")
        return self._completed(known[name], model)

    def _choices(self, spec: Runtime, model: str, precision: str) -> dict[str, list[Profile]]:
        """The engines with names of their own that a runtime can choose from, in the study's order."""
        wanted = {"builder": spec.builder, "model": model, "precision": precision}
        defined = (
            self.settings["profiles"]
            if spec.engine == "profile"
            else {
                name: external["profiles"]
                for name, external in self.settings["external"].items()
                if all(external[key] == value for key, value in wanted.items())
            }
        )
        only = spec.options.get(ENGINE.name)
        return {name: self._completed(ranges, model) for name, ranges in defined.items() if only in (None, name)}

    def _completed(self, ranges: Sequence[Mapping[str, Any]], model: str) -> list[Profile]:
        """Profiles with the axes that a model has in one size only."""
        fixed = self.models.fixed_axes(model)
        return [profile.completed(fixed) for profile in profiles.read(ranges)]

    def _no_engine(self, spec: Runtime, model: str, precision: str) -> str:
        if only := spec.options.get(ENGINE.name):
            key = "profiles" if spec.engine == "profile" else "external"
            of = "" if spec.engine == "profile" else f" of {spec.builder} for {model!r} in {precision}"
            hint = nearest(only, self.settings[key])
            return f"{spec.name!r} runs the engine {only}, and engines.{key} has none of that name{of}, {hint}"
        if spec.engine == "profile":
            return f"{spec.name!r} runs engines with profiles, and engines.profiles is empty; add one"
        return (
            f"{spec.name!r} runs engines from elsewhere, and engines.external has none of {spec.builder} for {model!r} "
            f"in {precision}; add one"
        )


def _all_covered(profiles: Sequence[Profile], shapes: Sequence[Shape]) -> bool:
    """Whether each shape lies in one of the profiles."""
    return all(any(one.covers(shape.full) for one in profiles) for shape in shapes)
