# Needs: an unfused graph, the measured limits of a device.
# Makes: results/floors/{device}/{model}/{precision}/{shape}.json, the least time that these limits allow


rule bound_latency:
    input:
        graph=counted_graph,
        peaks=rules.measure_peaks.output,
    output:
        "results/floors/{device}/{model}/{precision}/{shape}.json",
    log:
        "results/logs/bound_latency/{device}/{model}/{precision}/{shape}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        code=digest("bound_latency"),
    message:
        "Bounding {wildcards.model} {wildcards.precision} {wildcards.shape} by what {wildcards.device} allows"
    shell:
        "bound_latency.py --model {wildcards.model} --precision {wildcards.precision} --shape {wildcards.shape}"
        " --graph {input.graph} --peaks {input.peaks} --output {output} > {log} 2>&1"
