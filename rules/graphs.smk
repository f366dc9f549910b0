# Needs: weights or an imported graph, inputs and the reference of a model; a calibration for int8 and fp8.
# Makes: results/onnx/{model}/exported.onnx, simplified.onnx, {precision}.onnx, {precision}.fused.onnx, each with a .json
#        report beside it, {precision}.operator.onnx with our operators, {precision}.attention.so with their library, int8.cpu.onnx
#        for the CPU's kernels, int8.half.onnx (the rest in fp16) for TensorRT; results/parity/{model}/{graph}.json


rule export_onnx:
    input:
        rules.fetch_weights.output,
    output:
        graph="results/onnx/{model}/exported.onnx",
        report="results/onnx/{model}/exported.json",
    log:
        "results/logs/export_onnx/{model}.log",
    wildcard_constraints:
        model=WITH_WEIGHTS,
    conda:
        "../envs/cpu.yaml"
    params:
        export=export_slice,
        step=step_code,
        family=family_code,
        family_packages=family_packages,
        folder=weights_folder,
    message:
        "Exporting {wildcards.model} to ONNX"
    shell:
        "export_onnx.py --weights-dir {params.folder} --export {params.export:q}"
        " --output {output.graph} --report {output.report} > {log} 2>&1"


rule simplify_onnx:
    input:
        graph="results/onnx/{model}/exported.onnx",
        report="results/onnx/{model}/exported.json",
        workload="results/models/{model}/weights/workload.json",
    output:
        graph="results/onnx/{model}/simplified.onnx",
        report="results/onnx/{model}/simplified.json",
    log:
        "results/logs/simplify_onnx/{model}.log",
    conda:
        "../envs/cpu.yaml"
    message:
        "Simplifying the graph of {wildcards.model}"
    shell:
        "simplify_onnx.py --graph {input.graph} --workload {input.workload}"
        " --output {output.graph} --report {output.report} > {log} 2>&1"


rule convert_precision:
    input:
        graph=rules.simplify_onnx.output.graph,
        report=rules.simplify_onnx.output.report,
    output:
        graph="results/onnx/{model}/{precision}.onnx",
        report="results/onnx/{model}/{precision}.json",
    log:
        "results/logs/convert_precision/{model}/{precision}.log",
    wildcard_constraints:
        precision="fp32|fp16|bf16",
    conda:
        "../envs/cpu.yaml"
    message:
        "Making the {wildcards.precision} graph of {wildcards.model}"
    shell:
        "convert_precision.py --graph {input.graph} --precision {wildcards.precision}"
        " --output {output.graph} --report {output.report} > {log} 2>&1"


rule quantize_graph:
    input:
        graph=rules.simplify_onnx.output.graph,
        report=rules.simplify_onnx.output.report,
        calibration=f"results/calibration/{{model}}/{STUDY.config['calibration']['method']}.json",
        cache=f"results/calibration/{{model}}/{STUDY.config['calibration']['method']}.cache",
        inputs=sensitivity_inputs,
    output:
        graph="results/onnx/{model}/{precision}.onnx",
        report="results/onnx/{model}/{precision}.json",
    log:
        "results/logs/quantize_graph/{model}/{precision}.log",
    wildcard_constraints:
        precision="int8|fp8",
    conda:
        "../envs/cpu.yaml"
    threads: SLICES.cpu_threads
    params:
        quantization=SLICES.section("quantization"),
        floats="fp32",
        inputs=sensitivity_option,
        threads=SLICES.cpu_threads,
    message:
        "Quantising the graph of {wildcards.model} to {wildcards.precision}, the rest in {params.floats}"
    shell:
        "quantize_graph.py --graph {input.graph} --calibration {input.calibration}"
        " --precision {wildcards.precision} --quantization {params.quantization:q} --floats {params.floats}"
        " {params.inputs:q} --threads {params.threads}"
        " --output {output.graph} --report {output.report} > {log} 2>&1"


use rule quantize_graph as quantize_half_graph with:
    output:
        graph="results/onnx/{model}/{precision}.half.onnx",
        report="results/onnx/{model}/{precision}.half.json",
    log:
        "results/logs/quantize_graph/{model}/{precision}.half.log",
    params:
        quantization=SLICES.section("quantization"),
        floats="fp16",
        inputs=sensitivity_option,
        threads=SLICES.cpu_threads,


rule offset_activations:
    input:
        graph="results/onnx/{model}/int8.onnx",
        report="results/onnx/{model}/int8.json",
    output:
        graph="results/onnx/{model}/int8.cpu.onnx",
        report="results/onnx/{model}/int8.cpu.json",
    log:
        "results/logs/offset_activations/{model}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        weights="uint8" if STUDY.int8_saturates else "int8",
    message:
        "Making the int8 graph of {wildcards.model} that CPU kernels take"
    shell:
        "offset_activations.py --graph {input.graph} --weights {params.weights} --output {output.graph} --report {output.report} > {log} 2>&1"


rule fuse_graph:
    input:
        graph="results/onnx/{model}/{precision}.onnx",
        report="results/onnx/{model}/{precision}.json",
        model=model_files,
    output:
        graph="results/onnx/{model}/{precision}.fused.onnx",
        report="results/onnx/{model}/{precision}.fused.json",
    log:
        "results/logs/fuse_graph/{model}/{precision}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        fusion=fusion_slice,
        folder=weights_folder,
    message:
        "Fusing the {wildcards.precision} graph of {wildcards.model}"
    shell:
        "fuse_graph.py --graph {input.graph} --weights-dir {params.folder}"
        " --output {output.graph} --report {output.report} > {log} 2>&1"


rule place_operator:
    input:
        graph=rules.fuse_graph.output.graph,
        report=rules.fuse_graph.output.report,
    output:
        graph="results/onnx/{model}/{precision}.operator.onnx",
        report="results/onnx/{model}/{precision}.operator.json",
    log:
        "results/logs/place_operator/{model}/{precision}.log",
    conda:
        "../envs/cpu.yaml"
    message:
        "Placing our attention in the {wildcards.precision} graph of {wildcards.model}"
    shell:
        "place_operator.py --graph {input.graph} --output {output.graph} --report {output.report} > {log} 2>&1"


rule build_operator:
    input:
        graph=rules.place_operator.output.graph,
        report=rules.place_operator.output.report,
    output:
        library="results/onnx/{model}/{precision}.attention.so",
        report="results/onnx/{model}/{precision}.attention.json",
    log:
        "results/logs/build_operator/{model}/{precision}.log",
    conda:
        operator_environment
    message:
        "Building the library of our attention for the {wildcards.precision} graph of {wildcards.model}"
    shell:
        "build_operator.py --graph {input.graph} --output {output.library} --report {output.report} > {log} 2>&1"


rule check_parity:
    input:
        graph="results/onnx/{model}/{graph}.onnx",
        report="results/onnx/{model}/{graph}.json",
        library=parity_library,
        base=rules.simplify_onnx.output.graph,
        base_report=rules.simplify_onnx.output.report,
        workload="results/models/{model}/weights/workload.json",
        inputs=parity_inputs,
        reference=parity_reference,
        reader=reader_files,
    output:
        "results/parity/{model}/{graph}.json",
    log:
        "results/logs/check_parity/{model}/{graph}.log",
    conda:
        "../envs/cpu.yaml"
    threads: SLICES.cpu_threads
    params:
        threads=SLICES.cpu_threads,
        precision=graph_precision,
        reader=reader_code,
    message:
        "Comparing the {wildcards.graph} graph of {wildcards.model} with the FP32 reference"
    shell:
        "check_parity.py --graph {input.graph} --base {input.base} --precision {params.precision}"
        " --workload {input.workload} --inputs {input.inputs} --reference {input.reference}"
        " --threads {params.threads} --output {output} > {log} 2>&1"
