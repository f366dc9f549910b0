# Needs: a typed graph; the GPU that {device} names, or, for tensorrt-rtx, only its compute capability (sm-8.9).
# Makes: results/engines/{device}/{builder}/{model}/{precision}/{profile}.engine, with .json (what it is) and .layers.json
#        (what was fused) beside it; results/engines/{device}/{builder}/timing.cache, what all those builds timed;
#        results/engines/{device}/{cache}/{model}/{precision}/{shape}.cache, the engine that ONNX Runtime's TensorRT provider
#        built and kept, with .json beside it: what its first start cost;
#        results/traces/{device}/{runtime}/{model}/{precision}/{shape}.layers.json, what each layer takes


rule build_engine:
    input:
        graph=engine_graph,
        report=engine_graph_report,
    output:
        engine="results/engines/{device}/{builder}/{model}/{precision}/{profile}.engine",
        record="results/engines/{device}/{builder}/{model}/{precision}/{profile}.json",
        layers="results/engines/{device}/{builder}/{model}/{precision}/{profile}.layers.json",
        timing_cache="results/engines/{device}/{builder}/{model}/{precision}/{profile}.timing.cache",
    log:
        "results/logs/build_engine/{device}/{builder}/{model}/{precision}/{profile}.log",
    wildcard_constraints:
        builder="tensorrt1[01]",
    conda:
        engine_environment
    threads: 1024  # all of them: the builder times kernels
    resources:
        gpu=1,
    params:
        spec=engine_slice,
        files=engine_contents,
        worker=digest("ceilings.engines.build_worker"),
    message:
        "Building the {wildcards.precision} engine of {wildcards.model} for {wildcards.profile} with {wildcards.builder}"
    shell:
        "build_engine.py --device {wildcards.device} --precision {wildcards.precision} --graph {input.graph}"
        " --spec {params.spec:q} --output {output.engine} 2> {log}"


# Without a GPU nothing is timed, so nothing is disturbed: beside each other, but beside no timed job.
use rule build_engine as build_rtx_engine with:
    output:
        engine="results/engines/{device}/{builder}/{model}/{precision}/{profile}.engine",
        record="results/engines/{device}/{builder}/{model}/{precision}/{profile}.json",
        layers="results/engines/{device}/{builder}/{model}/{precision}/{profile}.layers.json",
    wildcard_constraints:
        builder="tensorrt-rtx",
    threads: 1
    resources:
        gpu=0,


rule merge_timing_caches:
    input:
        timing_caches,
    output:
        "results/engines/{device}/{builder}/timing.cache",
    log:
        "results/logs/merge_timing_caches/{device}/{builder}.log",
    wildcard_constraints:
        builder="tensorrt1[01]",
    conda:
        engine_environment
    message:
        "Merging what {wildcards.builder} timed on {wildcards.device}"
    shell:
        "merge_timing_caches.py --builder {wildcards.builder} --caches {input} --output {output} > {log} 2>&1"


rule build_engine_cache:
    input:
        graph=engine_graph,
        report=engine_graph_report,
        workload="results/models/{model}/weights/workload.json",
    output:
        record="results/engines/{device}/{cache}/{model}/{precision}/{shape}.cache.json",
        folder=directory("results/engines/{device}/{cache}/{model}/{precision}/{shape}.cache"),
    log:
        "results/logs/build_engine_cache/{device}/{cache}/{model}/{precision}/{shape}.log",
    conda:
        "../envs/tensorrt10.yaml"
    threads: 1024  # all of them: the builder times kernels
    resources:
        gpu=1,
    params:
        spec=cache_slice,
        worker=digest("ceilings.runtimes.tensorrt_cache_worker"),
    message:
        "Starting ONNX Runtime's TensorRT provider for the first time on {wildcards.model} {wildcards.precision} {wildcards.shape}"
    shell:
        "build_engine_cache.py --device {wildcards.device} --precision {wildcards.precision} --shape {wildcards.shape}"
        " --graph {input.graph} --workload {input.workload} --spec {params.spec:q} --folder {output.folder} --output {output.record} > {log} 2>&1"


# Never part of the summary: asked for by its path.
rule profile_layers:
    input:
        artifact=measured_artifact,
        inputs=rules.make_inputs.output,
        workload="results/models/{model}/weights/workload.json",
    output:
        "results/traces/{device}/{runtime}/{model}/{precision}/{shape}.layers.json",
    log:
        "results/logs/profile_layers/{device}/{runtime}/{model}/{precision}/{shape}.log",
    conda:
        measuring_environment
    threads: 1024  # all of them: nothing runs beside a timed job
    resources:
        gpu=1,
    params:
        spec=layers_slice,
    message:
        "Timing the layers of {wildcards.model} {wildcards.precision} {wildcards.shape} on {wildcards.runtime}"
    shell:
        "profile_layers.py --device {wildcards.device} --runtime {wildcards.runtime} --precision {wildcards.precision}"
        " --shape {wildcards.shape} --spec {params.spec:q} --engine {input.artifact[0]} --inputs {input.inputs}"
        " --workload {input.workload} --output {output} > {log} 2>&1"
