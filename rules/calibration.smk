# Needs: the simplified graph and calibration inputs of a model.
# Makes: results/calibration/{model}/{method}.json (readable ranges) and {method}.cache (TensorRT's format);
#        comparison.json, what each method costs in accuracy


rule calibrate_ranges:
    input:
        graph=rules.simplify_onnx.output.graph,
        report=rules.simplify_onnx.output.report,
        model=model_files,
    output:
        ranges="results/calibration/{model}/{method}.json",
        cache="results/calibration/{model}/{method}.cache",
    log:
        "results/logs/calibrate_ranges/{model}/{method}.log",
    conda:
        "../envs/cpu.yaml"
    threads: SLICES.cpu_threads
    params:
        calibration=calibration_slice,
        threads=SLICES.cpu_threads,
        folder=weights_folder,
    message:
        "Calibrating activation ranges of {wildcards.model} ({wildcards.method})"
    shell:
        "calibrate_ranges.py --graph {input.graph} --weights-dir {params.folder}"
        " --calibration {params.calibration:q} --threads {params.threads}"
        " --output {output.ranges} --tensorrt-cache {output.cache} > {log} 2>&1"


rule compare_calibrations:
    input:
        graph=rules.simplify_onnx.output.graph,
        report=rules.simplify_onnx.output.report,
        calibrations=expand("results/calibration/{{model}}/{method}.json", method=METHODS),
        caches=expand("results/calibration/{{model}}/{method}.cache", method=METHODS),
        workload="results/models/{model}/weights/workload.json",
        inputs=parity_inputs,
        reference=parity_reference,
    output:
        "results/calibration/{model}/comparison.json",
    log:
        "results/logs/compare_calibrations/{model}.log",
    conda:
        "../envs/cpu.yaml"
    threads: SLICES.cpu_threads
    params:
        quantization=SLICES.section("quantization"),
        threads=SLICES.cpu_threads,
    message:
        "Comparing calibration methods of {wildcards.model} by parity"
    shell:
        "compare_calibrations.py --graph {input.graph} --calibrations {input.calibrations}"
        " --quantization {params.quantization:q} --workload {input.workload} --inputs {input.inputs} --reference {input.reference}"
        " --threads {params.threads} --output {output} > {log} 2>&1"
