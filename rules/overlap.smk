# Needs: a graph (or weights), inputs and the reference; the GPU that {device} names.
# Makes: results/overlap/{device}/{runtime}/{model}/{precision}/{shape}/run{run}.json, schedules of copies and compute in
#        fresh processes; beside them, where captures can be recorded, capture.sqlite and hidden.json: how much of the
#        time of copies lies under kernels of other requests


rule measure_overlap:
    input:
        artifact=measured_artifact,
        inputs=rules.make_inputs.output,
        reference=rules.compute_reference.output,
        workload="results/models/{model}/weights/workload.json",
    output:
        "results/overlap/{device}/{runtime}/{model}/{precision}/{shape}/run{run}.json",
    log:
        "results/logs/measure_overlap/{device}/{runtime}/{model}/{precision}/{shape}/run{run}.log",
    priority: round_of_run
    conda:
        measuring_environment
    threads: 1024  # all of them: nothing runs beside a timed job
    resources:
        gpu=1,
    params:
        spec=overlap_slice,
    message:
        "Timing copies beside compute of {wildcards.model} {wildcards.precision} {wildcards.shape} on {wildcards.runtime}"
    shell:
        "measure_overlap.py --device {wildcards.device} --runtime {wildcards.runtime}"
        " --model {wildcards.model} --precision {wildcards.precision} --shape {wildcards.shape}"
        " --run {wildcards.run} --spec {params.spec:q} --artifact {input.artifact[0]} --inputs {input.inputs}"
        " --reference {input.reference} --workload {input.workload} --log {log} --output {output} > {log} 2>&1"


rule capture_overlap:
    input:
        artifact=measured_artifact,
        inputs=rules.make_inputs.output,
        workload="results/models/{model}/weights/workload.json",
    output:
        "results/overlap/{device}/{runtime}/{model}/{precision}/{shape}/capture.sqlite",
    log:
        "results/logs/capture_overlap/{device}/{runtime}/{model}/{precision}/{shape}.log",
    priority: -1000  # after all that is timed
    conda:
        measuring_environment
    threads: 1024  # nothing runs beside it
    resources:
        gpu=1,
    params:
        spec=overlap_trace_slice,
    message:
        "Capturing copies beside compute of {wildcards.model} {wildcards.precision} {wildcards.shape} on {wildcards.runtime}"
    shell:
        "capture_overlap.py --device {wildcards.device} --runtime {wildcards.runtime}"
        " --model {wildcards.model} --precision {wildcards.precision} --shape {wildcards.shape}"
        " --spec {params.spec:q} --artifact {input.artifact[0]} --inputs {input.inputs}"
        " --workload {input.workload} --output {output} > {log} 2>&1"


rule account_overlap:
    input:
        rules.capture_overlap.output,
    output:
        "results/overlap/{device}/{runtime}/{model}/{precision}/{shape}/hidden.json",
    log:
        "results/logs/account_overlap/{device}/{runtime}/{model}/{precision}/{shape}.log",
    conda:
        "../envs/cpu.yaml"
    message:
        "Accounting for the copies of {wildcards.model} {wildcards.precision} {wildcards.shape} on {wildcards.runtime}"
    shell:
        "account_overlap.py --capture {input} --output {output} > {log} 2>&1"
