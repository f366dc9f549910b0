# Needs: a model of the study.
# Makes: results/models/{model}/weights/, inputs/{shape}.npz, reference/{shape}.npz


rule fetch_weights:
    input:
        local_weights,
    output:
        weights="results/models/{model}/weights/model.safetensors",
        config="results/models/{model}/weights/config.json",
        provenance="results/models/{model}/weights/provenance.json",
    log:
        "results/logs/fetch_weights/{model}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        model=weights_slice,
        code=digest("fetch_weights"),
        folder=weights_folder,
    message:
        "Fetching the weights of {wildcards.model}"
    shell:
        "fetch_weights.py --model {params.model:q} --output-dir {params.folder} > {log} 2>&1"


rule make_inputs:
    input:
        weights=rules.fetch_weights.output,
    output:
        "results/models/{model}/inputs/{shape}.npz",
    log:
        "results/logs/make_inputs/{model}/{shape}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        inputs=inputs_slice,
        code=digest("make_inputs"),
        folder=weights_folder,
    message:
        "Making inputs of {wildcards.model} at {wildcards.shape}"
    shell:
        "make_inputs.py --weights-dir {params.folder} --inputs {params.inputs:q} --output {output}" " > {log} 2>&1"


rule compute_reference:
    input:
        weights=rules.fetch_weights.output,
        inputs=rules.make_inputs.output,
    output:
        "results/models/{model}/reference/{shape}.npz",
    log:
        "results/logs/compute_reference/{model}/{shape}.log",
    conda:
        "../envs/cpu.yaml"
    threads: STUDY.cpu_threads
    params:
        code=digest("compute_reference"),
        threads=STUDY.cpu_threads,
        folder=weights_folder,
    message:
        "Computing the FP32 reference of {wildcards.model} at {wildcards.shape}"
    shell:
        "compute_reference.py --weights-dir {params.folder} --inputs {input.inputs}"
        " --threads {params.threads} --output {output} > {log} 2>&1"
