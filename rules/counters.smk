# Needs: a graph (or weights) and inputs; the GPU that {device} names, with Nsight Compute; what it was measured to reach.
# Makes: results/traces/{device}/{runtime}/{model}/{precision}/{shape}.counters.json (hardware counters of each kernel of an
#        iteration; beside it the .ncu-rep of Nsight Compute, which must never be published) and .ncu.json (what limits
#        each kernel), .ncu.svg and .ncu.png (the hierarchical roofline). No latency comes from here.
#        On request results/hosts/{device}/lessons.json, .svg and .png: kernels that show one cause and its effect each


rule count_kernels:
    input:
        artifact=measured_artifact,
        inputs=rules.make_inputs.output,
        workload="results/models/{model}/weights/workload.json",
    output:
        "results/traces/{device}/{runtime}/{model}/{precision}/{shape}.counters.json",
    log:
        "results/logs/count_kernels/{device}/{runtime}/{model}/{precision}/{shape}.log",
    priority: -1000  # after all that is timed
    conda:
        measuring_environment
    threads: 1024  # nothing runs beside it
    resources:
        gpu=1,
    params:
        spec=counters_slice,
    message:
        "Counting kernels of {wildcards.model} {wildcards.precision} {wildcards.shape} on {wildcards.runtime}"
    shell:
        "count_kernels.py --device {wildcards.device} --runtime {wildcards.runtime}"
        " --model {wildcards.model} --precision {wildcards.precision} --shape {wildcards.shape}"
        " --spec {params.spec:q} --artifact {input.artifact[0]} --inputs {input.inputs}"
        " --workload {input.workload} --output {output} > {log} 2>&1"


rule judge_kernels:
    input:
        counters=rules.count_kernels.output,
        peaks=rules.measure_peaks.output,
        floor=cell_floor,
    output:
        "results/traces/{device}/{runtime}/{model}/{precision}/{shape}.ncu.json",
    log:
        "results/logs/judge_kernels/{device}/{runtime}/{model}/{precision}/{shape}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        floor=lambda wildcards, input: [word for path in input.floor for word in ("--floor", path)],
    message:
        "Judging kernels of {wildcards.model} {wildcards.precision} {wildcards.shape} on {wildcards.runtime}"
    shell:
        "judge_kernels.py --counters {input.counters} --peaks {input.peaks} {params.floor}"
        " --output {output} > {log} 2>&1"


rule draw_kernel_roofline:
    input:
        rules.judge_kernels.output,
    output:
        svg=report(
            "results/traces/{device}/{runtime}/{model}/{precision}/{shape}.ncu.svg",
            category="Kernels",
            labels={"cell": "{runtime}/{model}/{precision}/{shape}", "shows": "hierarchical roofline"},
            caption="../docs/captions/kernels.rst",
        ),
        png="results/traces/{device}/{runtime}/{model}/{precision}/{shape}.ncu.png",
    log:
        "results/logs/draw_kernel_roofline/{device}/{runtime}/{model}/{precision}/{shape}.log",
    conda:
        "../envs/cpu.yaml"
    message:
        "Drawing the kernels of {wildcards.model} {wildcards.precision} {wildcards.shape} on {wildcards.runtime}"
    shell:
        "draw_kernel_roofline.py --limits {input} --output-svg {output.svg} --output-png {output.png} > {log} 2>&1"


rule count_lessons:
    input:
        rules.measure_peaks.output,
    output:
        "results/hosts/{device}/lessons.json",
    log:
        "results/logs/count_lessons/{device}.log",
    conda:
        "../envs/gpu.yaml"
    threads: 1024  # nothing runs beside it
    resources:
        gpu=1,
    message:
        "Teaching on {wildcards.device}"
    shell:
        "count_lessons.py --device {wildcards.device} --peaks {input} --output {output} > {log} 2>&1"


rule draw_lessons:
    input:
        rules.count_lessons.output,
    output:
        svg=report(
            "results/hosts/{device}/lessons.svg",
            category="Kernels",
            labels={"cell": "lessons on {device}", "shows": "one cause and its effect each"},
            caption="../docs/captions/lessons.rst",
        ),
        png="results/hosts/{device}/lessons.png",
    log:
        "results/logs/draw_lessons/{device}.log",
    conda:
        "../envs/cpu.yaml"
    message:
        "Drawing the lessons on {wildcards.device}"
    shell:
        "draw_lessons.py --lessons {input} --output-svg {output.svg} --output-png {output.png} > {log} 2>&1"
