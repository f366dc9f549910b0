# The project with its environment. docs/offline.md says how to build, run and carry it, also with Apptainer.
#   docker build -t ceilings --build-arg KIND=gpu .
#   docker run --rm --init --gpus all -v "$PWD":/work ceilings results/summary.md
# Any base with Python 3.11 or newer will do that has apt-get, or make and git already.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

RUN { command -v make && command -v git; } >/dev/null || { apt-get update \
    && apt-get install -y --no-install-recommends make git ca-certificates && rm -rf /var/lib/apt/lists/*; }

# Packages first: a change of the project's code installs none of them again.
ARG KIND=cpu
# Where pip looks beside its index: PyTorch's builds for CPUs, say, which are smaller.
ARG PIP_EXTRA_INDEX_URL=
ARG PIP_FIND_LINKS=
WORKDIR /ceilings
COPY Makefile ./
COPY requirements requirements
RUN PIP_NO_CACHE_DIR=1 make .venv/${KIND} KIND=${KIND}

# With .git, so that records name the revision.
COPY . .
RUN touch .venv/${KIND} && git config --system --add safe.directory /ceilings

ENV PATH=/ceilings/.venv/bin:${PATH} NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Study, results and Snakemake's memory of them lie in the folder that is mounted here.
WORKDIR /work
ENTRYPOINT ["snakemake", "-s", "/ceilings/Snakefile", "--cores", "all"]
CMD ["results/summary.md"]
