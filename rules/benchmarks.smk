# Needs: a graph (or weights), inputs and the reference; the device that {device} names.
# Makes: results/benchmarks/{device}/{runtime}/{model}/{precision}/{shape}/run{run}.json, one fresh process each;
#        results/benchmarks/{device}/{runtime}/{model}/{precision}/{shape}/texts.json, whether the generated texts are right;
#        results/quality/{device}/{runtime}/{model}/{precision}.json, what a cell's answers are worth, untimed;
#        results/hosts/{device}/peaks.json, what the device allows;
#        results/hosts/{device}/transfers.json, how data gets there from the host and back


rule measure_latency:
    input:
        artifact=measured_artifact,
        inputs=rules.make_inputs.output,
        reference=rules.compute_reference.output,
        workload="results/models/{model}/weights/workload.json",
        weights=weights_record,
    output:
        "results/benchmarks/{device}/{runtime}/{model}/{precision}/{shape}/run{run}.json",
    log:
        "results/logs/measure_latency/{device}/{runtime}/{model}/{precision}/{shape}/run{run}.log",
    priority: round_of_run
    conda:
        measuring_environment
    threads: 1024  # all of them: nothing runs beside a timed job
    resources:
        gpu=1,
    params:
        spec=measure_slice,
    message:
        "Timing {wildcards.model} {wildcards.precision} {wildcards.shape} on {wildcards.runtime}, process {wildcards.run}"
    shell:
        "measure_latency.py --device {wildcards.device} --runtime {wildcards.runtime}"
        " --model {wildcards.model} --precision {wildcards.precision} --shape {wildcards.shape} --run {wildcards.run}"
        " --spec {params.spec:q} --artifact {input.artifact[0]} --inputs {input.inputs} --reference {input.reference}"
        " --workload {input.workload} --log {log} --output {output} > {log} 2>&1"


rule read_texts:
    input:
        runs=read_runs_of_here,
        model=model_files,
        inputs=rules.make_inputs.output,
    output:
        "results/benchmarks/{device}/{runtime}/{model}/{precision}/{shape}/texts.json",
    log:
        "results/logs/read_texts/{device}/{runtime}/{model}/{precision}/{shape}.log",
    priority: -500  # after all that is timed
    conda:
        reading_environment
    threads: device_threads
    resources:
        gpu=1,
    params:
        runs=every_read_run,
        recorded=read_runs_of_others,
        reader=reader_code,
        reader_packages=reader_packages,
        threads=device_threads,
        folder=weights_folder,
    message:
        "Reading what {wildcards.model} {wildcards.precision} {wildcards.shape} generated on {wildcards.runtime}"
    shell:
        "read_texts.py --device {wildcards.device} --runtime {wildcards.runtime}"
        " --model {wildcards.model} --precision {wildcards.precision} --shape {wildcards.shape} --runs {params.runs}"
        " --workload {params.folder}/workload.json --inputs {input.inputs} --threads {params.threads} --log {log}"
        " --output {output} > {log} 2>&1"


rule evaluate_quality:
    input:
        artifact=evaluated_artifact,
        data=rules.make_data.output.data,
        reference=rules.make_data.output.reference,
        workload="results/models/{model}/weights/workload.json",
    output:
        "results/quality/{device}/{runtime}/{model}/{precision}.json",
    log:
        "results/logs/evaluate_quality/{device}/{runtime}/{model}/{precision}.log",
    priority: -500  # after all that is timed
    conda:
        measuring_environment
    threads: device_threads
    resources:
        gpu=1,
    params:
        spec=quality_slice,
        shape=data_shape,
    message:
        "Evaluating the answers of {wildcards.model} {wildcards.precision} on {wildcards.runtime}"
    shell:
        "evaluate_quality.py --device {wildcards.device} --runtime {wildcards.runtime}"
        " --model {wildcards.model} --precision {wildcards.precision} --shape {params.shape}"
        " --spec {params.spec:q} --artifact {input.artifact[0]} --data {input.data} --reference {input.reference}"
        " --workload {input.workload} --log {log} --output {output} > {log} 2>&1"


rule measure_peaks:
    output:
        "results/hosts/{device}/peaks.json",
    log:
        "results/logs/measure_peaks/{device}.log",
    conda:
        "../envs/gpu.yaml"
    threads: 1024  # nothing runs beside it
    resources:
        gpu=1,
    params:
        products=SLICES.products,
    message:
        "Measuring what {wildcards.device} allows"
    shell:
        "measure_peaks.py --device {wildcards.device} --products {params.products:q} --output {output} > {log} 2>&1"


rule measure_transfers:
    output:
        "results/hosts/{device}/transfers.json",
    log:
        "results/logs/measure_transfers/{device}.log",
    conda:
        "../envs/gpu.yaml"
    threads: 1024  # nothing runs beside it
    resources:
        gpu=1,
    message:
        "Measuring transfers between the host and {wildcards.device}"
    shell:
        "measure_transfers.py --device {wildcards.device} --output {output} > {log} 2>&1"
