# Needs: an unfused graph, the measured limits of a device.
# Makes: results/floors/{device}/{model}/{graph}/{shape}.json, the least time that these limits allow


rule bound_latency:
    input:
        graph=counted_graph,
        report=counted_report,
        peaks=rules.measure_peaks.output,
    output:
        "results/floors/{device}/{model}/{graph}/{shape}.json",
    log:
        "results/logs/bound_latency/{device}/{model}/{graph}/{shape}.log",
    wildcard_constraints:
        # Named as the graph that is counted; tf32 is fp32's, computed in TF32.
        graph=f"({'|'.join(PRECISIONS)})(\\.half)?",
    conda:
        "../envs/cpu.yaml"
    params:
        precision=graph_precision,
    message:
        "Bounding {wildcards.model} {wildcards.graph} {wildcards.shape} by what {wildcards.device} allows"
    shell:
        "bound_latency.py --model {wildcards.model} --precision {params.precision} --shape {wildcards.shape}"
        " --graph {input.graph} --peaks {input.peaks} --output {output} > {log} 2>&1"
