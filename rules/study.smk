# Needs: the study (config), this machine.
# Makes: STUDY, on which every other stage's paths and params rest; the constraints on names in paths.
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# Of this file, not of the workflow: another workflow may use this one as a module, and then gives it its study.
PROJECT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
IS_MAIN = Path(workflow.main_snakefile).resolve().parent == PROJECT.resolve()
SCRIPTS = PROJECT / "workflow_scripts"
sys.path.insert(0, str(SCRIPTS))
from ceilings import bytecode, environment, host, leftovers, lifetime, plugins, turns
from ceilings.artifacts import report_of
from ceilings.errors import UserError
from ceilings.study import study_file
from ceilings.study.config import checked, nearest
from ceilings.workload.batches import REST, shape_of
from ceilings.workload.shape import PATTERN

# A study named with --configfile stands alone: merged with the default one it would still contain all of that. Without
# one it is the config.yaml where the workflow runs, else the one beside the Snakefile.
STUDY_FILES = workflow.overwrite_configfiles or [
    "config.yaml" if os.path.lexists("config.yaml") else str(PROJECT / "config.yaml")
]
try:
    for file in STUDY_FILES if IS_MAIN else []:
        study_file.refuse(file)  # before Snakemake reads it, and runs what it may hold
except UserError as error:
    raise WorkflowError(str(error)) from None

if not workflow.overwrite_configfiles:

    configfile: STUDY_FILES[0]


try:
    plugins.activate(checked(config)["plugins"])  # before any catalogue is read
    from ceilings.engines.catalogue import BUILDERS
    from ceilings.graphs import operator_library
    from ceilings.measure.colocation import NAMES as HOWS
    from ceilings.report.catalogue import PLOTS, TABLES, plots_of
    from ceilings.runtimes.catalogue import PRECISIONS
    from ceilings.runtimes.settings import PATTERN as SETTINGS
    from ceilings.study import busy, captures, code, disk, machines, missing
    from ceilings.study import once, plain_errors, progress, rule_params, user_files
    from ceilings.study.code import digest
    from ceilings.study.study import Study

    STUDY = Study(config, host.detect())
    STUDY.refuse_unwritable_results()
    disk.refuse_full(STUDY.paths.results)
    SLICES, TARGETS = STUDY.slices, STUDY.targets
    DRAWN = plots_of(TARGETS.parts)
    TARGETS.cells
    turns.pin(STUDY.side_by_side)
except UserError as error:
    raise WorkflowError(str(error)) from None

once.plan()
code.keep(code.MEMORY)
lifetime.announce()  # what this process starts ends with it
if workflow.is_main_process and leftovers.release_lock(Path(".snakemake")):
    print("The last run was killed: removed its lock", file=sys.stderr)

CAPTURE = "(?!-)(?:(?!-against-)[a-z0-9-])+"
METHODS = ("minmax", "entropy", "percentile")

host.pin(STUDY.host)
machines.pin(STUDY.machines)
environment.pin()
if IS_MAIN:
    shell.prefix(environment.PREFIX)
# Jobs find the programs, and the interpreter that runs Snakemake also where its environment was not activated.
host.lead_path(Path(sys.executable).parent, SCRIPTS)
bytecode.keep(Path(".snakemake/bytecode"))
TIME_LEFT = progress.show(STUDY.expected_seconds, lambda: workflow.dryrun)
DISTURBANCES = busy.show()


onstart:
    if workflow.local_exec and workflow.cores == 0:  # it would wait for ever
        raise WorkflowError("--cores 0 leaves no core to a job; give --cores 1 or more, or -n to see the plan")
    if workflow.local_exec and TIME_LEFT.remaining["describe_node"]:
        raise WorkflowError(
            "a node says itself what it is, and this run stays on this machine; give --profile (docs/clusters.md)"
        )
    if workflow.is_main_process:
        leftovers.hold(Path(".snakemake"))
        if removed := leftovers.clear(Path("results")):
            print(removed, file=sys.stderr)
        if STUDY.machines.undescribed:
            print(
                f"Not measured: {STUDY.machines.unknown.reason}; {STUDY.machines.unknown.remedy}", file=sys.stderr
            )
    if workflow.local_exec:  # else nothing is timed on this machine, and a batch system sees to the jobs
        if workflow.is_main_process and (others := turns.taken()):
            pids = ", ".join(map(str, others))
            print(f"Another run times on this machine (pid {pids}): timed processes take turns", file=sys.stderr)
        lifetime.end_jobs_on_signal()
        # Snakemake's rate limiter keeps one timer more for every job that has ended, and each wakes the scheduler once
        # a second: after a hundred jobs that took a quarter of a core beside the timed one. Here is nothing to limit.
        workflow.scheduler.job_rate_limiter = None
        progress.say(TIME_LEFT)
        if any(TIME_LEFT.remaining[name] for name in busy.RULES):
            busy.say(busy.before(STUDY.host.gpu))
    else:
        if not STUDY.machines.nodes and workflow.is_main_process:
            print(
                "The study names no nodes: jobs are for the devices of this machine alone (docs/clusters.md)",
                file=sys.stderr,
            )
        lifetime.cancel_jobs_on_signal()
        progress.hide()  # jobs wait in queues and run beside each other


onsuccess:
    busy.say(DISTURBANCES.conclusion())
    for line in captures.unreadable(map(STUDY.paths.explanation, TARGETS.captures)):
        print(line, file=sys.stderr)


onerror:
    busy.say(DISTURBANCES.conclusion())


wildcard_constraints:
    device="[a-z0-9][a-z0-9.-]*",
    runtime=f"[a-z0-9][a-z0-9-]*{SETTINGS}(\\.aa)?",
    model="[a-z0-9][a-z0-9.-]*",
    precision="|".join(PRECISIONS),
    graph=f"({'|'.join(PRECISIONS)})(\\.fused|\\.operator|\\.cpu|\\.half)?",
    method="|".join(METHODS),
    shape=PATTERN,
    run="[1-9][0-9]*",
    builder="|".join(BUILDERS),
    profile="[a-z0-9][a-z0-9-]*",
    sequence="[a-z0-9][a-z0-9-]*",
    rest=REST,
    node="|".join(map(re.escape, STUDY.machines.names)) or "(?!)",
    cache="onnxruntime-tensorrt-[0-9][0-9.]*",
    plot="[a-z0-9_]+",
    deployment="[a-z0-9][a-z0-9-]*(\\.aa)?",
    group="[a-z0-9][a-z0-9-]*",
    how="|".join(HOWS),
    capture=CAPTURE,
    before=CAPTURE,
    after=CAPTURE,


# Models that are ONNX files are imported; everything else has weights, also a name that no model has.
OF_ONNX = "|".join(map(re.escape, STUDY.models.of_onnx)) or "(?!)"
WITH_WEIGHTS = f"(?!({OF_ONNX})/)[a-z0-9][a-z0-9.-]*"


def known_targets():
    """The paths that somebody may have meant by one that no rule makes."""
    fixed = [str(output) for rule in workflow.rules if not rule.has_wildcards() for output in rule.output]
    plots = [f"results/plots/{plot}.{kind}" for plot in PLOTS for kind in ("svg", "png")]
    return [
        *fixed,
        *plots,
        *TARGETS.runs,
        *TARGETS.texts,
        *TARGETS.served_runs,
        *TARGETS.colocated_runs,
        *TARGETS.overlap_records,
        *TARGETS.transfers,
        *TARGETS.side_by_side,
        *TARGETS.budgets,
        *TARGETS.qualities,
        *TARGETS.changing_records,
        *TARGETS.changes,
        *TARGETS.search_records,
        *TARGETS.evidence,
        *TARGETS.explained_pages,
    ]


if IS_MAIN:
    plain_errors.show(known_targets)


# What the rules ask the study for, by wildcards.


def model_slice(wildcards):
    return SLICES.model(wildcards.model)


def family_code(wildcards):
    return SLICES.family(wildcards.model)


def step_code(wildcards):
    return SLICES.step(wildcards.model)


def weights_folder(wildcards):
    return STUDY.paths.weights(wildcards.model)


def family_packages(wildcards):
    return SLICES.family_packages(wildcards.model)


# Files that come from outside the workflow are params by their content: a touch or a copy changes nothing.


def local_contents(wildcards):
    return STUDY.model_contents(wildcards.model)


def model_files(wildcards):
    return STUDY.model_files(wildcards.model)


def reader_files(wildcards):
    """What the FP32 reference reads a runtime's text with."""
    return STUDY.model_files(wildcards.model) if reader_code(wildcards) else []


def reader_code(wildcards):
    return SLICES.reader(wildcards.model)


def reader_packages(wildcards):
    return SLICES.reader_packages(wildcards.model)


def weights_record(wildcards):
    """What a run record takes the digest of the weights from, beside the texts that it holds."""
    return STUDY.paths.provenance(wildcards.model) if reader_code(wildcards) else []


def every_read_run(wildcards):
    w = wildcards
    return STUDY.read_runs(w.runtime, w.model, w.precision, w.shape, w.device)


def read_runs_of_here(wildcards):
    return [run for run in every_read_run(wildcards) if run not in TARGETS.recorded_runs]


def read_runs_of_others(wildcards):
    """By their content: nothing here makes them."""
    return STUDY.recorded_contents([run for run in every_read_run(wildcards) if run in TARGETS.recorded_runs])


def reading_environment(wildcards):
    return f"../envs/{'gpu' if STUDY.machines.of(wildcards.device).gpu else 'cpu'}.yaml"


def inputs_slice(wildcards):
    STUDY.refuse_unfit(wildcards.model, wildcards.shape)
    return SLICES.inputs(wildcards.shape)


def length_contents(wildcards):
    return STUDY.length_contents(wildcards.shape)


def reference_graph(wildcards):
    return STUDY.reference_graph(wildcards.model)


def reference_report(wildcards):
    return [str(report_of(Path(graph))) for graph in reference_graph(wildcards)]


def reference_option(wildcards):
    return ["--graph", *reference_graph(wildcards)] if reference_graph(wildcards) else []


def export_slice(wildcards):
    return SLICES.export(wildcards.model)


def fusion_slice(wildcards):
    return SLICES.fusion(wildcards.model)


def calibration_slice(wildcards):
    return SLICES.calibration(wildcards.model, wildcards.method)


def parity_inputs(wildcards):
    return STUDY.paths.inputs(wildcards.model, SLICES.parity_shape(wildcards.model))


def parity_reference(wildcards):
    return STUDY.paths.reference(wildcards.model, SLICES.parity_shape(wildcards.model))


def sensitivity_inputs(wildcards):
    return STUDY.sensitivity_inputs(wildcards.model)


def sensitivity_option(wildcards):
    return ["--inputs", *sensitivity_inputs(wildcards)] if sensitivity_inputs(wildcards) else []


def parity_library(wildcards):
    return operator_library.files_of(STUDY.paths.graph(wildcards.model, wildcards.graph))


def graph_precision(wildcards):
    return wildcards.graph.split(".")[0]


def measure_slice(wildcards):
    return SLICES.measure(wildcards.runtime, wildcards.model, wildcards.precision, wildcards.device)


def serving_environment(wildcards):
    return f"../envs/{'cpu' if wildcards.device.startswith('cpu-') else 'gpu'}.yaml"


def serving_slice(wildcards):
    return STUDY.serving_slice(wildcards.deployment, wildcards.device)


def served_files(wildcards):
    """The files of every cell of a deployment, as the rule's inputs."""
    return [file for files in STUDY.served(wildcards.deployment, wildcards.device).values() for file in files]


def served_options(wildcards):
    """The same as options: of each cell those that the program names."""
    served = STUDY.served(wildcards.deployment, wildcards.device)
    return [word for cell, files in served.items() for word in ("--served", cell, *files[:4])]


def colocation_slice(wildcards):
    return STUDY.colocation_slice(wildcards.group, wildcards.device)


def colocation_environment(wildcards):
    """That of its first cell: one run has one."""
    first = next(iter(STUDY.colocated_files(wildcards.group, wildcards.device)))
    return f"../envs/{SLICES.runtime(first.partition('/')[0]).environment}.yaml"


def colocated_files(wildcards):
    """The files of every cell of a co-location, as the rule's inputs."""
    return [file for files in STUDY.colocated_files(wildcards.group, wildcards.device).values() for file in files]


def runs_on_cards(wildcards):
    return STUDY.runs_to_judge(wildcards.device)


def colocation_options(wildcards):
    """The same as options: of each cell those that the program names."""
    colocated = STUDY.colocated_files(wildcards.group, wildcards.device)
    return [word for cell, files in colocated.items() for word in ("--member", cell, *files[:4])]


def overlap_slice(wildcards):
    return SLICES.overlap(wildcards.runtime, wildcards.model, wildcards.precision, wildcards.device)


def overlap_trace_slice(wildcards):
    return SLICES.overlap_trace(wildcards.runtime, wildcards.model, wildcards.device)


def trace_slice(wildcards):
    return SLICES.trace(wildcards.runtime, wildcards.model, wildcards.device)


def counters_slice(wildcards):
    return SLICES.counters(wildcards.runtime, wildcards.model, wildcards.device)


def cell_floor(wildcards):
    w = wildcards
    return STUDY.floor(w.runtime, w.model, w.precision, w.shape, w.device)


def capture_path(wildcards):
    return str(STUDY.capture(wildcards.capture).path)


def capture_options(wildcards):
    return list(STUDY.capture(wildcards.capture).options)


def capture_contents(wildcards):
    return STUDY.capture_contents(wildcards.capture)


def measured_artifact(wildcards):
    return STUDY.artifact(wildcards.runtime, wildcards.model, wildcards.precision, wildcards.shape, wildcards.device)


def data_slice(wildcards):
    return SLICES.data(wildcards.model)


def data_contents(wildcards):
    return STUDY.data_contents(wildcards.model)


def data_shape(wildcards):
    return str(SLICES.quality_shape(wildcards.model))


def quality_slice(wildcards):
    return SLICES.quality(wildcards.runtime, wildcards.model, wildcards.device)


def changing_slice(wildcards):
    w = wildcards
    return SLICES.changing(w.runtime, w.model, w.precision, w.sequence, w.device)


def changing_trace_slice(wildcards):
    w = wildcards
    return SLICES.changing_trace(w.runtime, w.model, w.sequence, w.device)


def changing_artifact(wildcards):
    w = wildcards
    return STUDY.changing_artifact(w.runtime, w.model, w.precision, w.sequence, w.device)


def changing_inputs(wildcards):
    return STUDY.changing_pools(wildcards.model, wildcards.sequence)[0]


def changing_references(wildcards):
    return STUDY.changing_pools(wildcards.model, wildcards.sequence)[1]


def changing_runs(wildcards):
    w = wildcards
    folder = STUDY.paths.changing(w.device, w.runtime, w.model, w.precision, w.sequence)
    return [f"{folder}/run{number}.json" for number in range(1, STUDY.config["protocol"]["processes"] + 1)]


def bucket_limits(wildcards):
    return STUDY.bucket_limits


def search_slice(wildcards):
    return SLICES.best_batch(wildcards.runtime, wildcards.model, wildcards.precision, wildcards.device)


def searched_artifact(wildcards):
    w = wildcards
    return STUDY.searched_artifact(w.runtime, w.model, w.precision, w.rest, w.device)


def searched_inputs(wildcards):
    return SLICES.inputs(str(shape_of(wildcards.rest, 1)))


def searched_lengths(wildcards):
    return STUDY.length_contents(str(shape_of(wildcards.rest, 1)))


def device_threads(wildcards):
    return SLICES.threads(wildcards.device)


def node_option(wildcards):
    """Whether the node must have a GPU, and of which kind."""
    resources = STUDY.machines.resources_of_node(wildcards.node)
    kind = f" --gpu-model {shlex.quote(str(resources['gpu_model']))}" if "gpu_model" in resources else ""
    return f"--gpu{kind}" if resources.get("gpu") else ""


def evaluated_artifact(wildcards):
    w = wildcards
    return STUDY.artifact(w.runtime, w.model, w.precision, data_shape(w), w.device)


def engine_layers(wildcards):
    w = wildcards
    return STUDY.engine_layers(w.runtime, w.model, w.precision, w.shape, w.device)


def layer_files(wildcards):
    return list(engine_layers(wildcards).values())


def layer_options(wildcards):
    return [word for option in engine_layers(wildcards).items() for word in option]


def counted_graph(wildcards):
    return STUDY.counted_graph(wildcards.model, wildcards.graph)


def counted_report(wildcards):
    return str(report_of(Path(counted_graph(wildcards))))


def measuring_environment(wildcards):
    return f"../envs/{SLICES.runtime(wildcards.runtime).environment}.yaml"


def operator_environment(wildcards):
    return f"../envs/{'gpu' if wildcards.precision == 'fp16' else 'cpu'}.yaml"  # Triton comes with a build for GPUs


def layers_slice(wildcards):
    return SLICES.layers(wildcards.runtime)


def cache_slice(wildcards):
    return STUDY.engines.cache_slice()


def engine_graph(wildcards):
    return STUDY.engine_graph(wildcards.model, wildcards.precision)


def engine_graph_report(wildcards):
    return str(report_of(Path(engine_graph(wildcards))))


def engine_contents(wildcards):
    return STUDY.engine_contents(wildcards.builder, wildcards.profile)


def engine_slice(wildcards):
    w = wildcards
    return STUDY.engines.slice(w.device, w.builder, w.model, w.precision, w.profile)


def engine_environment(wildcards):
    return f"../envs/{wildcards.builder}.yaml"


def timing_caches(wildcards):
    return STUDY.timing_caches(wildcards.device, wildcards.builder)


def round_of_run(wildcards):
    """Every cell's first process before any cell's second: drift falls on all cells alike."""
    return -int(wildcards.run)


def code_of_plot(wildcards):
    if wildcards.plot not in PLOTS:
        raise UserError(f"no plot is called {wildcards.plot!r}, {nearest(wildcards.plot, PLOTS)}")
    return digest(f"ceilings.report.render.plots.{wildcards.plot}")


def plot_labels(wildcards):
    return {"plot": wildcards.plot.replace("_", " "), "shows": PLOTS[wildcards.plot]}


def tables_to_read(folder):
    """The CSV of each table, as ``--report`` shows it."""
    shown = dict(category="Tables", caption="../docs/captions/table.rst")
    labels = {name: {"table": name, "holds": holds} for name, holds in TABLES.items()}
    return [report(f"{folder}/{name}.csv", labels=labels[name], **shown) for name in TABLES]


def tables_before(wildcards):
    return [f"{STUDY.comparison['before']}/tables/{table}.parquet" for table in user_files.COMPARED]


def comparison_options(wildcards):
    """The section as the program's options: before, margin and, across devices, both of them."""
    return [word for key, value in STUDY.comparison.items() for word in (f"--{key.replace('_', '-')}", str(value))]


def trend_options(wildcards):
    return [STUDY.trends["trees"], "results", "--margin", str(STUDY.trends["margin"])]


def trend_contents(wildcards):
    return STUDY.trend_contents


def summary_evidence(wildcards):
    return TARGETS.evidence


def recorded_records(wildcards):
    return STUDY.recorded_contents(TARGETS.recorded_records)


def recorded_evidence(wildcards):
    return STUDY.recorded_contents(TARGETS.recorded_evidence)
