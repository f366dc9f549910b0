# From a study (config.yaml) to results/summary.md. Each stage of rules/ opens with what it needs and what it makes.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")


# A study named with --configfile stands alone: merged with the default one it would still contain all of that. Without
# one it is the config.yaml where the workflow runs, else the one beside this file.
if not workflow.overwrite_configfiles:
    PROJECT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))

    configfile: "config.yaml" if Path("config.yaml").exists() else str(PROJECT / "config.yaml")


report: "docs/captions/workflow.rst"


include: "rules/study.smk"
include: "rules/models.smk"
include: "rules/graphs.smk"
include: "rules/calibration.smk"
include: "rules/engines.smk"
include: "rules/benchmarks.smk"
include: "rules/floors.smk"
include: "rules/traces.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        "results/summary.md",
        "results/report.html",
