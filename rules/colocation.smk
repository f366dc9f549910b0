# Needs: of each cell of a co-location a graph (or weights), inputs and the reference; the device that {device} names.
# Makes: results/colocation/{device}/{group}/{how}/run{run}.json, fresh processes each;
#        results/hosts/{device}/side_by_side.json, whether cells of separate cards may be timed side by side


rule measure_colocation:
    input:
        colocated_files,
    output:
        "results/colocation/{device}/{group}/{how}/run{run}.json",
    log:
        "results/logs/measure_colocation/{device}/{group}/{how}/run{run}.log",
    priority: round_of_run
    conda:
        colocation_environment
    threads: 1024  # all of them: nothing runs beside a timed job
    resources:
        gpu=1,
    params:
        spec=colocation_slice,
        options=colocation_options,
    message:
        "Timing {wildcards.group} alone and in company, by {wildcards.how}, run {wildcards.run}"
    shell:
        "measure_colocation.py --device {wildcards.device} --group {wildcards.group} --how {wildcards.how}"
        " --run {wildcards.run} --spec {params.spec:q} {params.options:q} --log {log} --output {output} > {log} 2>&1"


rule judge_side_by_side:
    input:
        runs_on_cards,
    output:
        "results/hosts/{device}/side_by_side.json",
    log:
        "results/logs/judge_side_by_side/{device}.log",
    conda:
        "../envs/cpu.yaml"
    message:
        "Judging whether cells of separate cards of {wildcards.device} may be timed side by side"
    shell:
        "judge_side_by_side.py --device {wildcards.device} --runs {input} --output {output} > {log} 2>&1"
