# Needs: the simplified graph and calibration inputs of a model.
# Makes: results/calibration/{model}/{method}.json (readable ranges) and {method}.cache (TensorRT's format)


rule calibrate_ranges:
    input:
        graph=rules.simplify_onnx.output.graph,
        weights=rules.fetch_weights.output,
    output:
        ranges="results/calibration/{model}/{method}.json",
        cache="results/calibration/{model}/{method}.cache",
    log:
        "results/logs/calibrate_ranges/{model}/{method}.log",
    conda:
        "../envs/cpu.yaml"
    threads: STUDY.cpu_threads
    params:
        calibration=calibration_slice,
        code=digest("calibrate_ranges"),
        threads=STUDY.cpu_threads,
        folder=weights_folder,
    message:
        "Calibrating activation ranges of {wildcards.model} ({wildcards.method})"
    shell:
        "calibrate_ranges.py --graph {input.graph} --weights-dir {params.folder}"
        " --calibration {params.calibration:q} --threads {params.threads}"
        " --output {output.ranges} --tensorrt-cache {output.cache} > {log} 2>&1"
