# Needs: a model of the study: from a hub, a folder, an ONNX file or a seed.
# Makes: results/models/{model}/weights/ (of an ONNX file: its workload, and results/onnx/{model}/exported.onnx),
#        inputs/{shape}.npz, reference/{shape}.npz, data.npz (the rows that quality is evaluated on)


rule fetch_weights:
    output:
        weights="results/models/{model}/weights/model.safetensors",
        config="results/models/{model}/weights/config.json",
        workload="results/models/{model}/weights/workload.json",
        provenance="results/models/{model}/weights/provenance.json",
    log:
        "results/logs/fetch_weights/{model}.log",
    wildcard_constraints:
        model=WITH_WEIGHTS,
    conda:
        "../envs/cpu.yaml"
    params:
        model=model_slice,
        files=local_contents,
        family=family_code,
        family_packages=family_packages,
        folder=weights_folder,
    message:
        "Fetching the weights of {wildcards.model}"
    shell:
        "fetch_weights.py --model {params.model:q} --output-dir {params.folder} > {log} 2>&1"


rule import_onnx:
    output:
        graph="results/onnx/{model}/exported.onnx",
        report="results/onnx/{model}/exported.json",
        workload="results/models/{model}/weights/workload.json",
        provenance="results/models/{model}/weights/provenance.json",
    log:
        "results/logs/import_onnx/{model}.log",
    wildcard_constraints:
        model=OF_ONNX,
    conda:
        "../envs/cpu.yaml"
    params:
        model=model_slice,
        files=local_contents,
        folder=weights_folder,
    message:
        "Importing the ONNX file of {wildcards.model}"
    shell:
        "import_onnx.py --model {params.model:q} --weights-dir {params.folder}"
        " --output {output.graph} --report {output.report} > {log} 2>&1"


rule make_inputs:
    input:
        model=model_files,
    output:
        "results/models/{model}/inputs/{shape}.npz",
    log:
        "results/logs/make_inputs/{model}/{shape}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        inputs=inputs_slice,
        lengths=length_contents,
        folder=weights_folder,
    message:
        "Making inputs of {wildcards.model} at {wildcards.shape}"
    shell:
        "make_inputs.py --weights-dir {params.folder} --shape {wildcards.shape} --inputs {params.inputs:q}"
        " --output {output} > {log} 2>&1"


rule compute_reference:
    input:
        model=model_files,
        graph=reference_graph,
        report=reference_report,
        inputs=rules.make_inputs.output,
    output:
        "results/models/{model}/reference/{shape}.npz",
    log:
        "results/logs/compute_reference/{model}/{shape}.log",
    conda:
        "../envs/cpu.yaml"
    threads: SLICES.cpu_threads
    params:
        family=family_code,
        family_packages=family_packages,
        graph=reference_option,
        threads=SLICES.cpu_threads,
        folder=weights_folder,
    message:
        "Computing the FP32 reference of {wildcards.model} at {wildcards.shape}"
    shell:
        "compute_reference.py --weights-dir {params.folder} {params.graph:q} --inputs {input.inputs}"
        " --shape {wildcards.shape} --threads {params.threads} --output {output} > {log} 2>&1"


rule make_data:
    input:
        model=model_files,
        graph=reference_graph,
        report=reference_report,
    output:
        data="results/models/{model}/data.npz",
        report="results/models/{model}/data.json",
        reference="results/models/{model}/data.reference.npz",
    log:
        "results/logs/make_data/{model}.log",
    conda:
        "../envs/cpu.yaml"
    threads: SLICES.cpu_threads
    params:
        data=data_slice,
        files=data_contents,
        shape=data_shape,
        family=family_code,
        family_packages=family_packages,
        graph=reference_option,
        threads=SLICES.cpu_threads,
        folder=weights_folder,
    message:
        "Making the rows that the quality of {wildcards.model} is evaluated on"
    shell:
        "make_data.py --weights-dir {params.folder} {params.graph:q} --data {params.data:q} --shape {params.shape}"
        " --threads {params.threads} --reference {output.reference} --output {output.data} > {log} 2>&1"
