# Needs: the study (config), this machine.
# Makes: STUDY, on which every other stage's paths and params rest; the constraints on names in paths.
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

SCRIPTS = Path(workflow.basedir, "workflow_scripts")
sys.path.insert(0, str(SCRIPTS))
from ceilings import host
from ceilings.engines.catalogue import BUILDERS
from ceilings.errors import UserError
from ceilings.report.catalogue import PLOTS, TABLES
from ceilings.runtimes.catalogue import PRECISIONS
from ceilings.study import progress
from ceilings.study.cells import Study
from ceilings.study.code import digest
from ceilings.study.config import refuse_duplicate_keys

try:
    for file in workflow.configfiles:
        refuse_duplicate_keys(file)
    STUDY = Study(config, host.detect())
    STUDY.refuse_unwritable_results()
except UserError as error:
    raise WorkflowError(str(error)) from None

METHODS = ("minmax", "entropy", "percentile")

host.pin(STUDY.host)
# Jobs find the programs, and the interpreter that runs Snakemake also where its environment was not activated.
host.lead_path(Path(sys.executable).parent, SCRIPTS)
progress.show(STUDY.expected_seconds)


onstart:
    # Snakemake's rate limiter keeps one timer more for every job that has ended, and each wakes the scheduler once a
    # second: after a hundred jobs that took a quarter of a core beside the timed one. Here is nothing to limit.
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None


wildcard_constraints:
    device="[a-z0-9][a-z0-9.-]*",
    runtime="[a-z0-9][a-z0-9-]*(\\.twin)?",
    model="[a-z0-9][a-z0-9.-]*",
    precision="|".join(PRECISIONS),
    graph=f"({'|'.join(PRECISIONS)})(\\.fused|\\.cpu|\\.half)?",
    method="|".join(METHODS),
    shape="b[1-9][0-9]*-s[1-9][0-9]*",
    run="[1-9][0-9]*",
    builder="|".join(BUILDERS),
    profile="[a-z0-9][a-z0-9-]*",
    cache="onnxruntime-tensorrt-[0-9][0-9.]*",
    plot="[a-z0-9_]+",


# What the rules ask the study for, by wildcards.


def weights_slice(wildcards):
    return STUDY.weights_slice(wildcards.model)


def weights_folder(wildcards):
    return f"results/models/{wildcards.model}/weights"


def local_weights(wildcards):
    return STUDY.local_weights(wildcards.model)


def architecture(wildcards):
    return STUDY.model(wildcards.model)["architecture"]


def inputs_slice(wildcards):
    return STUDY.inputs_slice(wildcards.shape)


def calibration_slice(wildcards):
    return STUDY.calibration_slice(wildcards.method)


def sensitivity_inputs(wildcards):
    return STUDY.sensitivity_inputs(wildcards.model)


def sensitivity_option(wildcards):
    return " ".join(["--inputs", *sensitivity_inputs(wildcards)]) if sensitivity_inputs(wildcards) else ""


def graph_precision(wildcards):
    return wildcards.graph.split(".")[0]


def measure_slice(wildcards):
    return STUDY.measure_slice(wildcards.runtime, wildcards.precision)


def trace_slice(wildcards):
    return STUDY.trace_slice(wildcards.runtime, wildcards.precision)


def measured_artifact(wildcards):
    return STUDY.artifact(wildcards.runtime, wildcards.model, wildcards.precision, wildcards.shape, wildcards.device)


def engine_layers(wildcards):
    w = wildcards
    return STUDY.engine_layers(w.runtime, w.model, w.precision, w.shape, w.device)


def layer_files(wildcards):
    return list(engine_layers(wildcards).values())


def layer_options(wildcards):
    return [word for option in engine_layers(wildcards).items() for word in option]


def counted_graph(wildcards):
    return STUDY.counted_graph(wildcards.model, wildcards.graph)


def measuring_environment(wildcards):
    return f"../envs/{STUDY.runtime(wildcards.runtime).environment}.yaml"


def layers_slice(wildcards):
    return STUDY.layers_slice(wildcards.runtime)


def cache_slice(wildcards):
    return STUDY.engines.cache_slice()


def engine_graph(wildcards):
    return STUDY.engine_graph(wildcards.model, wildcards.precision)


def engine_files(wildcards):
    return STUDY.engines.files(wildcards.builder, wildcards.profile)


def engine_slice(wildcards):
    return STUDY.engines.slice(wildcards.device, wildcards.builder, wildcards.precision, wildcards.profile)


def engine_environment(wildcards):
    return f"../envs/{wildcards.builder}.yaml"


def timing_caches(wildcards):
    return STUDY.timing_caches(wildcards.device, wildcards.builder)


def round_of_run(wildcards):
    """Every cell's first process before any cell's second: drift falls on all cells alike."""
    return -int(wildcards.run)


def code_of_plot(wildcards):
    return digest("draw_plot", f"ceilings.report.render.plots.{wildcards.plot}")


def plot_labels(wildcards):
    return {"plot": wildcards.plot.replace("_", " "), "shows": PLOTS[wildcards.plot]}


def tables_to_read(folder):
    """The CSV of each table, as ``--report`` shows it."""
    shown = dict(category="Tables", caption="../docs/captions/table.rst")
    labels = {name: {"table": name, "holds": holds} for name, holds in TABLES.items()}
    return [report(f"{folder}/{name}.csv", labels=labels[name], **shown) for name in TABLES]


def tables_before(wildcards):
    tables = ("cells", "runs", "samples", "budgets", "floors")
    return [f"{STUDY.comparison['before']}/tables/{table}.parquet" for table in tables]


def comparison_options(wildcards):
    """The section as the program's options: before, margin and, across devices, both of them."""
    return [word for key, value in STUDY.comparison.items() for word in (f"--{key.replace('_', '-')}", str(value))]


def summary_evidence(wildcards):
    return STUDY.evidence
