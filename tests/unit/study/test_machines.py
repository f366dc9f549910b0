"""The machines that a study measures on: this one, or nodes that it names and that described themselves."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
from snakemake.resources import Resource, Resources
from unit.study.test_study import CONFIG, GPU, LAPTOP, SWEEP

from ceilings import records
from ceilings.errors import UserError
from ceilings.host import Host
from ceilings.study import machines
from ceilings.study.lacking import lacking
from ceilings.study.study import Study

OTHER_GPU = dataclasses.replace(GPU, slug="nvidia-other", name="NVIDIA Other", driver="590.2", capability=(8, 0))
HOSTS = {
    "fast": Host("cpu-epyc", "EPYC", 48, GPU, None),
    "slow": Host("cpu-xeon", "Xeon", 16, OTHER_GPU, None),
    "plain": Host("cpu-epyc", "EPYC", 64, None, "no CUDA device"),
}
NODES = {
    "fast": {"gpu_model": "h200"},
    "slow": {"gpu": 1, "gpu_model": "a100", "slurm_partition": "old"},
    "plain": {"constraint": "epyc&nvme"},
}
BOTH = {"one": {**SWEEP, "runtimes": ["onnxruntime-cpu", "torch-cuda-eager"]}}


@pytest.fixture
def everything_is_installed(monkeypatch):
    monkeypatch.setattr("ceilings.study.availability.installed", lambda needed: dict.fromkeys(needed, "2.11"))


def study(folder, described=HOSTS, **changes):
    for name, host in described.items():
        path = folder / "nodes" / f"{name}.json"
        path.parent.mkdir(exist_ok=True, parents=True)
        records.write(path, "node", {"node": name, "host": dataclasses.asdict(host)})
    return Study({**CONFIG, "sweeps": BOTH, "nodes": NODES, **changes}, LAPTOP, str(folder))


def devices(made, kind):
    return {cell.device for cell in made.cells if cell.spec.device == kind}


@pytest.mark.usefixtures("everything_is_installed")
def test_each_device_of_the_nodes_measures_a_cell_and_this_machine_none(tmp_path):
    made = study(tmp_path)
    assert devices(made, "cuda") == {"nvidia-test", "nvidia-other"}
    assert devices(made, "cpu") == {"cpu-epyc", "cpu-xeon"}
    assert all(cell.available and not cell.recorded for cell in made.cells)
    assert len({(cell.device, cell.runtime) for cell in made.cells}) == len(made.cells) == 4 + 4  # an A/A pair a device
    assert LAPTOP.cpu_slug not in made.plan()


@pytest.mark.usefixtures("everything_is_installed")
def test_threads_drivers_and_capabilities_are_those_of_the_node(tmp_path):
    made = study(tmp_path)

    def measured(runtime, device):
        return json.loads(made.slices.measure(runtime, "m", "fp32", device))

    assert measured("onnxruntime-cpu", "cpu-epyc")["threads"] == 64  # the node without a GPU comes first
    assert measured("onnxruntime-cpu", "cpu-xeon")["threads"] == 16
    assert measured("torch-cuda-eager", "nvidia-test")["driver"] == GPU.driver
    assert measured("torch-cuda-eager", "nvidia-other")["driver"] == "590.2"
    assert made.slices.cpu_threads == LAPTOP.cores  # what makes artifacts
    engine = json.loads(made.engines.slice("nvidia-other", "tensorrt11", "m", "fp32", "b1-s32"))
    assert (engine["gpu"], engine["capability"]) == ("NVIDIA Other", [8, 0])


@pytest.mark.usefixtures("everything_is_installed")
def test_a_precision_is_measured_where_the_hardware_has_it(tmp_path):
    old = {"old": dataclasses.replace(HOSTS["slow"], gpu=dataclasses.replace(OTHER_GPU, capability=(7, 0)))}
    sweeps = {"one": {**SWEEP, "runtimes": ["torch-cuda-eager"], "precisions": ["bf16"]}}
    made = study(tmp_path, {**HOSTS, "slow": old["old"]}, sweeps=sweeps)
    can = {cell.device: bool(cell.available) for cell in made.cells if not cell.aa_of}
    assert can == {"nvidia-test": True, "nvidia-other": False}
    named = {cell for one in lacking(made.machines.hosts, ["m"], made._planner.availability) for cell in one["cells"]}
    assert "torch-cuda-eager/m/bf16" not in named  # one of the machines has it


def test_a_job_reaches_the_node_of_its_device(tmp_path):
    found = study(tmp_path).machines
    assert found.resources("nvidia-test") == {"gpu": 1, "gpu_model": "h200"}
    assert found.resources("nvidia-other") == {"gpu": 1, "gpu_model": "a100", "slurm_partition": "old"}
    assert found.resources("cpu-epyc") == {"constraint": "epyc&nvme"}
    assert found.resources_of_node("plain") == {"constraint": "epyc&nvme"}
    with pytest.raises(UserError, match=r"no node of the study has nvidia-nope; its nodes have cpu-epyc, cpu-xeon, nv"):
        found.resources("nvidia-nope")
    with pytest.raises(UserError, match="no node of the study has cpu-test"):
        found.resources(LAPTOP.cpu_slug)


def test_two_nodes_of_one_kind_measure_it_once(tmp_path):
    twins = {"plain": HOSTS["plain"], "fast": HOSTS["plain"], "slow": HOSTS["plain"]}
    nodes = {name: {"constraint": name} for name in twins}
    made = study(tmp_path, twins, sweeps={"one": SWEEP}, nodes=nodes)
    assert [cell.device for cell in made.cells] == ["cpu-epyc"] * 2  # an A/A pair


def test_nodes_that_have_not_described_themselves_are_named_with_the_command(tmp_path):
    made = study(tmp_path, {"plain": HOSTS["plain"]})
    waiting = [cell for cell in made.cells if not cell.available]
    assert {cell.runtime for cell in waiting} == {"onnxruntime-cpu", "torch-cuda-eager"}
    assert waiting[0].available.reason == "nothing is known yet of the nodes fast, slow"
    assert "results/nodes/fast.json results/nodes/slow.json" in waiting[0].available.remedy
    assert devices(made, "cpu") == {"cpu-epyc", None}
    none = study(tmp_path / "none", {})
    assert {cell.device for cell in none.cells} == {None} and json.loads(none.plan())["devices"] == []


def test_jobs_plan_what_the_head_node_planned(tmp_path):
    pinned: dict[str, str] = {}
    machines.pin(study(tmp_path, {"plain": HOSTS["plain"]}).machines, pinned)
    later = study(tmp_path)  # another node describes itself meanwhile
    again = machines.read(later.given, LAPTOP, later.paths, pinned)
    assert again.hosts == [HOSTS["plain"]] and again.undescribed == ["fast", "slow"]


def test_a_sweep_for_machines_without_a_gpu_runs_on_nodes_without_one(tmp_path):
    made = study(tmp_path, sweeps={"one": {**SWEEP, "unless": "gpu"}})
    assert devices(made, "cpu") == {"cpu-epyc"}


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        ({"h200": {}}, r"nodes.h200: must not be empty"),
        ({"h200": {"gpu_model": "h200; rm -rf ~"}}, r"nodes.h200.gpu_model: .* is not allowed"),
        ({"h200": {"gpu": -1}}, r"nodes.h200.gpu: -1 is out of range"),
        ({"h200": {"slurm_extra": "x"}}, r"nodes.h200: .*slurm_extra.* is not allowed"),
        ({"h200": {"gpu": "two"}}, r'nodes.h200.gpu: "two" is not a whole number'),
        (
            {"h200": {"gpu_modell": "h200"}},
            r"nodes.h200: the resource 'gpu_modell' is unknown, did you mean 'gpu_model'",
        ),
        ({"plain": {"constraints": "cpu-b"}}, r"nodes.plain: .*'constraints' is unknown, did you mean 'constraint'"),
        ({"plain": {"partition": "cpu"}}, r"'partition' is unknown, did you mean 'slurm_partition'.*node_resources"),
        ({"H 200": {"gpu": 1}}, r"nodes: .*H 200.* is not allowed"),
    ],
)
def test_nodes_are_checked(nodes, problem):
    with pytest.raises(UserError, match=problem):
        Study({**CONFIG, "nodes": nodes}, LAPTOP)


def test_a_resource_of_this_site_is_named_as_one():
    Study({**CONFIG, "nodes": {"mine": {"switch_group": "b"}}, "node_resources": ["switch_group"]}, LAPTOP)


@pytest.mark.parametrize(
    ("name", "asked", "another"),
    [
        ("NVIDIA H200", "h100", True),
        ("NVIDIA H100 80GB HBM3", "h200", True),
        ("NVIDIA A100-SXM4-80GB", "a10", True),
        ("NVIDIA H100 80GB HBM3", "h100", False),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA-A100-SXM4-80GB", False),
        ("NVIDIA GeForce RTX 3090", "rtx3090", False),
        ("NVIDIA H100 80GB HBM3", "fast", False),
    ],
)
def test_a_node_with_another_gpu_than_the_study_asks_for_is_refused(tmp_path, name, asked, another):
    host = dataclasses.replace(HOSTS["fast"], gpu=dataclasses.replace(GPU, name=name))
    nodes = {"nodes": {"fast": {"gpu_model": asked}}}
    if not another:
        assert study(tmp_path, {"fast": host}, **nodes).machines.hosts == [host]
        return
    with pytest.raises(UserError, match=rf"nodes.fast.gpu_model: {asked} is asked for, .* {name}; .*fast.json"):
        study(tmp_path, {"fast": host}, **nodes)


def test_a_node_without_the_gpu_that_the_study_asks_for_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nodes.plain.gpu_model: h100 is asked for, .* no GPU"):
        study(tmp_path, {"plain": HOSTS["plain"]}, nodes={"plain": {"gpu_model": "h100"}})


def test_a_damaged_description_is_refused_with_its_remedy(tmp_path):
    path = tmp_path / "nodes" / "fast.json"
    study(tmp_path)
    path.write_text(path.read_text().replace("580.1", "999.9"))
    with pytest.raises(UserError, match=r"fast.json was changed since it was written"):
        study(tmp_path, {})


def test_rules_that_need_a_device_ask_for_its_node_and_others_for_none(tmp_path):
    found = study(tmp_path).machines

    def routed(gpu, given=()):
        rule = SimpleNamespace(resources=Resources({"gpu": Resource("gpu", gpu)}))
        machines.route(rule, found, dict.fromkeys(given))
        return rule.resources

    def asked(resources, **wildcards):
        at = SimpleNamespace(**wildcards)
        return {name: one.evaluate(at).value for name, one in resources.items()}

    timed = routed(1)
    assert asked(timed, device="nvidia-test") == {
        "gpu": 1,
        "gpu_model": "h200",
        "slurm_partition": None,
        "constraint": None,
    }
    assert asked(timed, device="cpu-epyc")["gpu"] is None  # Snakemake drops what is None
    assert asked(timed, node="slow")["slurm_partition"] == "old"
    assert asked(routed(0)) == {"gpu": 0}
    assert "constraint" not in routed(1, given=["constraint"])  # what the profile says stays
