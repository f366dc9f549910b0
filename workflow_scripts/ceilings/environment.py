"""The environment variables of what the pipeline starts: known ones pass, those that shape a latency count, no other.

- *Harmless* ones pass to everything: where things are, which GPU, in which language.
- *Shaping* ones change what a library computes or how fast (``OMP_PROC_BIND``, ``LD_PRELOAD``). They pass to processes
  that execute a cell, stand in its record and in its slice of the study: a changed value runs the cell anew. Programs
  that make artifacts do without them, but for those that the loader and CUDA's numbering of devices need.
- *Pinned* ones are set here.
- Any other is dropped.

Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

SCRIPTS = Path(__file__).parents[1]

QUIET = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "CONDA_ANON_USAGE": "0",
}
"""Telemetry off: ONNX Runtime's starts with its import, writes to the user's cache and adds a thread to the process."""

PINNED = {**QUIET, "PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1"}
"""In every process that executes a cell. PYTHONSAFEPATH: else a folder of the working directory that is called like a
package would shadow it."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Pinned to the study's count, not the one that Snakemake derives from --cores."""

_HARMLESS = re.compile(
    r"CEILINGS_.*|CONDA_.*|LC_.*|XDG_.*|LANG|LANGUAGE|TZ|TERM"
    r"|PATH|HOME|USER|LOGNAME|SHELL|PWD|TMPDIR|TMP|TEMP|TEMPDIR|VIRTUAL_ENV"
    r"|PYTHON(PATH|HOME|NOUSERSITE|USERBASE|DONTWRITEBYTECODE|PYCACHEPREFIX|UNBUFFERED|IOENCODING|UTF8|WARNINGS)"
    r"|CUDA_(VISIBLE_DEVICES|HOME|PATH|ROOT|CACHE_PATH)|NVIDIA_(VISIBLE_DEVICES|DRIVER_CAPABILITIES)"
    r"|TORCH_HOME|TORCH_EXTENSIONS_DIR|TORCHINDUCTOR_CACHE_DIR|TRITON_(HOME|CACHE_DIR)"
    r"|HF_HOME|HF_HUB_CACHE|HUGGINGFACE_HUB_CACHE|TRANSFORMERS_CACHE"
)

_SHAPING = re.compile(
    r"(ATEN|AOTI|BLIS|CUBLAS|CUBLASLT|CUDA|CUDNN|DNNL|ONEDNN|GOMP|KMP|LIBOMP|OMP|LD|MALLOC|MIMALLOC|TCMALLOC|MKL|NPY|OPENBLAS"
    r"|ONNXRUNTIME|ORT|PYTORCH|TBB|TENSORRT|TRT|TRITON|XLA)_.+|TORCH.+|PYTHON.+|GLIBC_TUNABLES|NVIDIA_TF32_OVERRIDE|CC|CXX"
)

_NEITHER = re.compile(r".*_VERSION|.*(TOKEN|SECRET|PASSWORD|CREDENTIAL|API_KEY).*|.+_NUM_THREADS|TORCH_CUDA_ARCH_LIST")
"""What container images say of themselves, secrets, and thread counts, which are the study's."""

_ALWAYS = re.compile(r"LD_LIBRARY_PATH|LD_PRELOAD|CUDA_DEVICE_ORDER")
"""Shaping ones that artifact programs need too: to load their libraries, and to find the same GPU."""

_HUB = re.compile(
    r"HF_.*|HUGGING.*|(HTTPS?|FTP|ALL|NO)_PROXY|(https?|ftp|all|no)_proxy|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE"
)
"""How a model hub is reached: for artifact programs, of which some fetch; never for what executes a cell."""

_SHELL = re.compile(r"BASH.*|SHELLOPTS|SHLVL|UID|EUID|PPID|SNAKEMAKE_.*|(?![A-Za-z_]\w*$).*")
"""Bash keeps these, or cannot drop them."""

PIN = "CEILINGS_ENVIRONMENT"
"""Environment variable with the shaping ones as JSON: so they reach each worker, past the programs that start it."""

DROPPED = "CEILINGS_DROPPED"
"""Environment variable with the names that the shell of each job drops."""


def quiet() -> None:
    """Switch telemetry off for this process and all that it starts; to be called before any library is imported."""
    os.environ.update(QUIET)


def passes(name: str) -> bool:
    """Whether everything that the pipeline starts gets a variable.

    >>> [passes(name) for name in ("HOME", "CUDA_VISIBLE_DEVICES", "LD_PRELOAD", "OMP_PROC_BIND", "MY_EDITOR")]
    [True, True, True, False, False]
    """
    return name in QUIET or bool(_HARMLESS.fullmatch(name) or _ALWAYS.fullmatch(name))


def shapes(name: str) -> bool:
    """Whether a variable changes what a library computes or how fast.

    >>> [shapes(name) for name in ("OMP_PROC_BIND", "LD_PRELOAD", "OMP_NUM_THREADS", "PYTHONPATH", "MY_EDITOR")]
    [True, True, False, False, False]
    """
    not_so = name in PINNED or _HARMLESS.fullmatch(name) or _NEITHER.fullmatch(name)
    return not not_so and bool(_SHAPING.fullmatch(name))


def shaping(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The shaping variables by name: as the process that planned the run had them, else of ``environment``."""
    if pinned := environment.get(PIN):
        return dict(json.loads(pinned))
    return {name: value for name, value in sorted(environment.items()) if shapes(name)}


def shaping_now() -> dict[str, str]:
    """The shaping variables of this process as they are now, whatever the run was planned with."""
    return {name: value for name, value in sorted(os.environ.items()) if shapes(name)}


def recorded(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables as records may show them: values that could be paths or anything else of a person as digests.

    >>> recorded({"OMP_PROC_BIND": "close", "LD_PRELOAD": "/home/me/libjemalloc.so"})
    {'LD_PRELOAD': 'sha256:103fa154a513', 'OMP_PROC_BIND': 'close'}
    """
    return {name: _shown(value) for name, value in sorted(variables.items())}


_DIGEST = "sha256:"


def _shown(value: str) -> str:
    if re.fullmatch(r"[\w .,:;=+-]{0,100}", value):
        return value
    return f"{_DIGEST}{hashlib.sha256(value.encode(errors='surrogateescape')).hexdigest()[:12]}"


def flags(variables: Mapping[str, str], planned: Mapping[str, str] | None = None) -> list[str]:
    """What a record says beside its numbers of the shaping variables, as recorded, that it ran under.

    >>> flags({"CC": "sha256:d59fcbeee357", "OMP_PROC_BIND": "close"}, {"CC": "sha256:d59fcbeee357"})
    ['the environment sets CC, OMP_PROC_BIND=close', 'planned with another OMP_PROC_BIND']
    """
    named = [
        name if value.startswith(_DIGEST) else f"{name}={value}"
        for name, value in variables.items()
        if name != "LD_LIBRARY_PATH"
    ]
    shown = [f"the environment sets {', '.join(named)}"] if named else []
    if planned is not None and planned != variables:
        names = sorted(name for name in {*variables, *planned} if variables.get(name) != planned.get(name))
        shown.append(f"planned with another {', '.join(names)}")
    return shown


def pin() -> None:
    """Hand the shaping variables to every worker of this run, and have every job's shell drop what is unknown."""
    os.environ[PIN] = json.dumps(shaping())
    os.environ[DROPPED] = " ".join(
        name for name in sorted(os.environ) if not (passes(name) or _HUB.fullmatch(name) or _SHELL.fullmatch(name))
    )


PREFIX = f"set -euo pipefail; unset -v ${DROPPED}; "
"""What the shell of each job begins with."""


def known() -> dict[str, str]:
    """The environment of a process that executes nothing for the record; it finds this package."""
    path = os.pathsep.join(filter(None, (str(SCRIPTS), os.environ.get("PYTHONPATH"))))
    kept = {name: value for name, value in os.environ.items() if passes(name)}
    return {**kept, **PINNED, "PYTHONPATH": path}


def executing(threads: int) -> dict[str, str]:
    """The environment of a process that executes a cell with so many threads."""
    return {**known(), **shaping(), **PINNED, **dict.fromkeys(THREADS, str(threads))}
