"""One process that builds one engine: ``python -m ceilings.engines.build_worker TASK.json FOLDER``.

Started by :mod:`ceilings.engines.produce`, because builders crash and run out of memory: that is then a result of the
engine and not an end of the pipeline. Leaves ``engine``, ``layers.json``, ``timing.cache`` and ``built.json``.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from ceilings.engines import builder, inspect, profiles
from ceilings.errors import CellFailure, UserError
from ceilings.files import read_json, write_json
from ceilings.program import leave


def work(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Build the engine of ``task`` into ``folder``; returns what is known of it."""
    settings = task["settings"]
    capability = settings.pop("capability")
    settings = builder.Settings(
        **{**settings, "profiles": profiles.read(settings["profiles"])},
        capability=tuple(capability) if capability else None,
    )
    cache = Path(task["timing_cache"]).read_bytes() if task["timing_cache"] else b""
    try:
        built = builder.build(task["graph"], settings, cache)
    except CellFailure as failure:
        print(f"{failure.kind}: {failure}", file=sys.stderr)
        return {"status": "failed", "failure": {"kind": failure.kind, "message": str(failure)}}
    print(*built.warnings, sep="\n", file=sys.stderr)
    (folder / "engine").write_bytes(built.engine)
    if built.timing_cache is not None:
        (folder / "timing.cache").write_bytes(built.timing_cache)
    write_json(folder / "layers.json", inspect.read(built.layers, built.layers_format))
    known = {field.name: getattr(built, field.name) for field in dataclasses.fields(built)}
    for large in ("engine", "layers", "timing_cache"):
        del known[large]
    return {"status": "ok", "failure": None, **known}


def main() -> None:
    """Read the task, build, write what came of it."""
    task, folder = sys.argv[1:]
    try:
        write_json(Path(folder, "built.json"), work(read_json(task), Path(folder)))
    except UserError as error:
        sys.exit(f"error: {error}")
    leave()


if __name__ == "__main__":
    main()
