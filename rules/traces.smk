# Needs: a graph (or weights) and inputs; the GPU that {device} names. No latency comes from here.
# Makes: results/traces/{device}/{runtime}/{model}/{precision}/{shape}.sqlite (a capture; where Nsight Systems made it, a
#        .nsys-rep beside it, which holds environments and must never be published) and .budget.json;
#        on request .perfetto.json and .torch.json, which ui.perfetto.dev opens


rule capture_trace:
    input:
        artifact=measured_artifact,
        inputs=rules.make_inputs.output,
        workload="results/models/{model}/weights/workload.json",
    output:
        "results/traces/{device}/{runtime}/{model}/{precision}/{shape}.sqlite",
    log:
        "results/logs/capture_trace/{device}/{runtime}/{model}/{precision}/{shape}.log",
    priority: -1000  # after all that is timed
    conda:
        measuring_environment
    threads: 1024  # nothing runs beside it
    resources:
        gpu=1,
    params:
        spec=trace_slice,
    message:
        "Capturing {wildcards.model} {wildcards.precision} {wildcards.shape} on {wildcards.runtime}"
    shell:
        "capture_trace.py --device {wildcards.device} --runtime {wildcards.runtime}"
        " --model {wildcards.model} --precision {wildcards.precision} --shape {wildcards.shape}"
        " --spec {params.spec:q} --artifact {input.artifact[0]} --inputs {input.inputs}"
        " --workload {input.workload} --output {output} > {log} 2>&1"


rule account_budget:
    input:
        capture=rules.capture_trace.output,
        layers=layer_files,
    output:
        "results/traces/{device}/{runtime}/{model}/{precision}/{shape}.budget.json",
    log:
        "results/logs/account_budget/{device}/{runtime}/{model}/{precision}/{shape}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        layers=layer_options,
    message:
        "Accounting for {wildcards.model} {wildcards.precision} {wildcards.shape} on {wildcards.runtime}"
    shell:
        "account_budget.py --capture {input.capture} {params.layers} --output {output} > {log} 2>&1"


rule export_perfetto:
    input:
        rules.capture_trace.output,
    output:
        "results/traces/{device}/{runtime}/{model}/{precision}/{shape}.perfetto.json",
    log:
        "results/logs/export_perfetto/{device}/{runtime}/{model}/{precision}/{shape}.log",
    conda:
        "../envs/cpu.yaml"
    message:
        "Exporting a capture of {wildcards.model} on {wildcards.runtime} for Perfetto"
    shell:
        "export_perfetto.py --capture {input} --output {output} > {log} 2>&1"


rule profile_torch:
    input:
        artifact=measured_artifact,
        inputs=rules.make_inputs.output,
        workload="results/models/{model}/weights/workload.json",
    output:
        "results/traces/{device}/{runtime}/{model}/{precision}/{shape}.torch.json",
    log:
        "results/logs/profile_torch/{device}/{runtime}/{model}/{precision}/{shape}.log",
    priority: -1000
    conda:
        measuring_environment
    threads: 1024
    resources:
        gpu=1,
    params:
        spec=trace_slice,
    message:
        "Profiling {wildcards.model} on {wildcards.runtime} with PyTorch's profiler"
    shell:
        "profile_torch.py --device {wildcards.device} --runtime {wildcards.runtime}"
        " --model {wildcards.model} --precision {wildcards.precision} --shape {wildcards.shape}"
        " --spec {params.spec:q} --artifact {input.artifact[0]} --inputs {input.inputs}"
        " --workload {input.workload} --output {output} > {log} 2>&1"
