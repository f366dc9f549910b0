# From a study (config.yaml) to results/summary.md. Each stage of rules/ opens with what it needs and what it makes.
from snakemake.utils import min_version

min_version("9.0")


report: "docs/captions/workflow.rst"


include: "rules/study.smk"
include: "rules/models.smk"
include: "rules/graphs.smk"
include: "rules/calibration.smk"
include: "rules/engines.smk"
include: "rules/benchmarks.smk"
include: "rules/shapes.smk"
include: "rules/batches.smk"
include: "rules/colocation.smk"
include: "rules/overlap.smk"
include: "rules/serving.smk"
include: "rules/floors.smk"
include: "rules/traces.smk"
include: "rules/counters.smk"
include: "rules/captures.smk"
include: "rules/report.smk"
include: "rules/nodes.smk"


rule all:
    default_target: True
    input:
        "results/summary.md",
        "results/report.html",


for one in workflow.rules:
    if Path(one.snakefile).is_relative_to(PROJECT):  # another workflow may use these rules beside its
        rule_params.complete(one)
        missing.look_for_outputs(one)
        machines.route(one, STUDY.machines, workflow.resource_settings.overwrite_resources.get(one.name, {}))
