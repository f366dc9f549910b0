# Needs: a graph (or weights), inputs and references of every shape of a sequence; the device that {device} names.
# Makes: results/changing/{device}/{runtime}/{model}/{precision}/{sequence}/run{run}.json, one fresh process each;
#        buckets.json beside them, the sizes to pad up to; padded{run}.json, the sequence with its requests padded so;
#        capture.sqlite, recorded requests, and change.json, what a change of the shape costs in them, by parts


rule measure_changing:
    input:
        artifact=changing_artifact,
        inputs=changing_inputs,
        references=changing_references,
        workload="results/models/{model}/weights/workload.json",
    output:
        "results/changing/{device}/{runtime}/{model}/{precision}/{sequence}/run{run}.json",
    log:
        "results/logs/measure_changing/{device}/{runtime}/{model}/{precision}/{sequence}/run{run}.log",
    priority: round_of_run
    conda:
        measuring_environment
    threads: 1024  # all of them: nothing runs beside a timed job
    resources:
        gpu=1,
    params:
        spec=changing_slice,
    message:
        "Timing {wildcards.model} {wildcards.precision} on {wildcards.runtime} with the shapes of {wildcards.sequence}"
    shell:
        "measure_changing.py --device {wildcards.device} --runtime {wildcards.runtime}"
        " --model {wildcards.model} --precision {wildcards.precision} --sequence {wildcards.sequence}"
        " --run {wildcards.run} --spec {params.spec:q} --artifact {input.artifact[0]} --inputs {input.inputs}"
        " --references {input.references} --workload {input.workload} --log {log} --output {output} > {log} 2>&1"


rule choose_buckets:
    input:
        changing_runs,
    output:
        "results/changing/{device}/{runtime}/{model}/{precision}/{sequence}/buckets.json",
    log:
        "results/logs/choose_buckets/{device}/{runtime}/{model}/{precision}/{sequence}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        limits=bucket_limits,
    message:
        "Choosing buckets for {wildcards.sequence} with {wildcards.model} on {wildcards.runtime}"
    shell:
        "choose_buckets.py {input} --limits {params.limits:q} --output {output} > {log} 2>&1"


rule measure_padded:
    input:
        artifact=changing_artifact,
        inputs=changing_inputs,
        references=changing_references,
        workload="results/models/{model}/weights/workload.json",
        buckets=rules.choose_buckets.output,
    output:
        "results/changing/{device}/{runtime}/{model}/{precision}/{sequence}/padded{run}.json",
    log:
        "results/logs/measure_padded/{device}/{runtime}/{model}/{precision}/{sequence}/run{run}.log",
    priority: round_of_run
    conda:
        measuring_environment
    threads: 1024
    resources:
        gpu=1,
    params:
        spec=changing_slice,
    message:
        "Timing {wildcards.model} {wildcards.precision} on {wildcards.runtime} with {wildcards.sequence} padded"
    shell:
        "measure_changing.py --device {wildcards.device} --runtime {wildcards.runtime}"
        " --model {wildcards.model} --precision {wildcards.precision} --sequence {wildcards.sequence}"
        " --run {wildcards.run} --spec {params.spec:q} --artifact {input.artifact[0]} --inputs {input.inputs}"
        " --references {input.references} --workload {input.workload} --buckets {input.buckets} --log {log}"
        " --output {output} > {log} 2>&1"


rule capture_changing:
    input:
        artifact=changing_artifact,
        inputs=changing_inputs,
        workload="results/models/{model}/weights/workload.json",
    output:
        "results/changing/{device}/{runtime}/{model}/{precision}/{sequence}/capture.sqlite",
    log:
        "results/logs/capture_changing/{device}/{runtime}/{model}/{precision}/{sequence}.log",
    priority: -1000  # after all that is timed
    conda:
        measuring_environment
    threads: 1024
    resources:
        gpu=1,
    params:
        spec=changing_trace_slice,
    message:
        "Capturing {wildcards.model} {wildcards.precision} on {wildcards.runtime} with the shapes of {wildcards.sequence}"
    shell:
        "capture_changing.py --device {wildcards.device} --runtime {wildcards.runtime}"
        " --model {wildcards.model} --precision {wildcards.precision} --sequence {wildcards.sequence}"
        " --spec {params.spec:q} --artifact {input.artifact[0]} --inputs {input.inputs}"
        " --workload {input.workload} --output {output} > {log} 2>&1"


rule account_change:
    input:
        rules.capture_changing.output,
    output:
        "results/changing/{device}/{runtime}/{model}/{precision}/{sequence}/change.json",
    log:
        "results/logs/account_change/{device}/{runtime}/{model}/{precision}/{sequence}.log",
    conda:
        "../envs/cpu.yaml"
    message:
        "Accounting for the changes of {wildcards.sequence} with {wildcards.model} on {wildcards.runtime}"
    shell:
        "account_change.py --capture {input} --output {output} > {log} 2>&1"
