"""The Kubernetes profile: real kubectl and Snakemake, against a double of the API server that runs pods as processes.

No API server can be had here. The double knows the addresses that kubectl asks for Jobs, schedules nothing and refuses
nothing: what it gets was held against the schemas of Kubernetes 1.28 and 1.37 by hand (docs/clusters.md).
"""

import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from argparse import Namespace

import pytest
import yaml
from test_slurm import PLUGINS
from tiny import PROJECT, STUDY

PLUGIN = "snakemake_executor_plugin_cluster_generic"
FOUND = importlib.util.find_spec(PLUGIN) or (PLUGINS / PLUGIN).is_dir()
pytestmark = pytest.mark.workflow

JOBS = "/apis/batch/v1/namespaces/default/jobs"
RESOURCE = {
    "name": "jobs",
    "singularName": "job",
    "namespaced": True,
    "kind": "Job",
    "verbs": ["create", "get", "delete"],
}
LISTS = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis": {
        "kind": "APIGroupList",
        "groups": [{"name": "batch", "versions": [{"groupVersion": "batch/v1", "version": "v1"}]}],
    },
    "/apis/batch/v1": {"kind": "APIResourceList", "groupVersion": "batch/v1", "resources": [RESOURCE]},
    "/openapi/v3": {"paths": {"apis/batch/v1": {"serverRelativeURL": "/openapi/v3/apis/batch/v1"}}},
    "/openapi/v3/apis/batch/v1": {  # kubectl leaves the validation to a server that knows this parameter
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.32.0"},
        "paths": {
            f"{JOBS.replace('default', '{namespace}')}/{{name}}": {
                "patch": {
                    "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                    "x-kubernetes-group-version-kind": {"group": "batch", "version": "v1", "kind": "Job"},
                    "responses": {},
                }
            }
        },
    },
}


def manifest(**resources):
    path = PROJECT / "profiles/kubernetes/jobs.py"
    spec = importlib.util.spec_from_file_location("kubernetes_jobs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = Namespace(image="image:1", claim="volume", mount="/work")
    return module.manifest({"rule": "measure_latency", "threads": 8, "resources": resources}, "true", arguments)


def test_a_timed_pod_gets_a_gpu_of_its_kind_and_a_node_for_itself(monkeypatch):
    for name in [name for name in os.environ if name.startswith("CEILINGS_")]:  # of tests before this one
        monkeypatch.delenv(name)
    monkeypatch.setenv("CEILINGS_HOST", "{}")
    monkeypatch.setenv("CEILINGS_PIPELINE", "1-2-3")
    job = manifest(gpu=1, gpu_model="NVIDIA-H200", alone=1, runtime=90)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H200"}
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "1"}, "requests": {}}
    (term,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"] == job["spec"]["template"]["metadata"]["labels"]
    assert job["spec"]["activeDeadlineSeconds"] == 5400 and job["spec"]["backoffLimit"] == 0
    assert container["env"] == [{"name": "CEILINGS_HOST", "value": "{}"}]


def test_a_pod_that_builds_asks_for_cores_and_memory_and_no_gpu():
    pod = manifest(mem_mb=8000)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"] == {
        "limits": {"memory": "8000M"},
        "requests": {"memory": "8000M", "cpu": "8"},
    }
    assert pod["nodeSelector"] == {} and pod["tolerations"] == [] and "affinity" not in pod


class Server(http.server.ThreadingHTTPServer):
    """A double of the API server.

    Attributes:
        jobs: What was created, by name, with the process that stands for its pod.
    """

    def __init__(self) -> None:
        self.jobs = {}
        super().__init__(("127.0.0.1", 0), Handler)

    def start(self, job):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        variables = {one["name"]: one["value"] for one in container["env"]}
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        process = subprocess.Popen(
            container["command"],
            cwd=container["workingDir"],
            env={**kept, **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.jobs[job["metadata"]["name"]] = job, process


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith(f"{JOBS}/") and path.rpartition("/")[2] in self.server.jobs:
            job, process = self.server.jobs[path.rpartition("/")[2]]
            ended = {None: [], 0: [{"type": "Complete", "status": "True"}]}
            conditions = ended.get(process.poll(), [{"type": "Failed", "status": "True"}])
            return self.answer({**job, "status": {"conditions": conditions}})
        return self.answer(LISTS[path]) if path in LISTS else self.answer({"kind": "Status", "code": 404}, 404)

    def do_POST(self):
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.start(job)
        self.answer(job, 201)

    def answer(self, content, code=200):
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    (tmp_path / "kubeconfig").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": address}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
                "users": [{"name": "u", "user": {}}],
                "current-context": "c",
            }
        )
    )
    yield server
    server.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
@pytest.mark.skipif(not FOUND, reason="no plugin for Snakemake; make .venv/clusters installs it")
def test_jobs_run_as_pods_and_their_ends_are_seen(server, tmp_path):
    for name in ("Snakefile", "rules", "workflow_scripts", "envs", "profiles", "docs"):
        (tmp_path / name).symlink_to(PROJECT / name)
    nodes = {"plain": {"machine_type": "c3-standard-4"}, "h200": {"gpu_model": "NVIDIA-H200"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**STUDY, "nodes": nodes}))
    path = os.pathsep.join(filter(None, (str(PLUGINS), os.environ.get("PYTHONPATH"))))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CEILINGS_")}

    def run(*targets):
        words = ["--profile", "profiles/kubernetes", "--seconds-between-status-checks", "1", "-k", *targets]
        environment = {**clean, "PYTHONPATH": path, "KUBECONFIG": str(tmp_path / "kubeconfig")}
        command = [sys.executable, "-m", "snakemake", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    described = run("results/nodes/plain.json", "results/nodes/h200.json")
    assert described.returncode and "h200 has no GPU for this job" in described.stderr, described.stderr
    host = json.loads((tmp_path / "results/nodes/plain.json").read_text())["host"]
    record = f"results/benchmarks/{host['cpu_slug']}/torch-eager/tiny/fp32/b1-s16/run1.json"
    measured = run(record)
    assert measured.returncode == 0, measured.stderr
    assert json.loads((tmp_path / record).read_text())["status"] == "ok"
    pods = {name: job["spec"]["template"]["spec"] for name, (job, _) in server.jobs.items()}
    (timed,) = [pod for name, pod in pods.items() if "measure-latency" in name]
    assert timed["nodeSelector"] == {"node.kubernetes.io/instance-type": "c3-standard-4"} and timed["affinity"]
    assert any("make-inputs" in name and not pod["nodeSelector"] for name, pod in pods.items())
