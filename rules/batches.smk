# Needs: a graph (or weights), the model's files; the device that {device} names.
# Makes: results/best_batch/{device}/{runtime}/{model}/{precision}/{rest}.json, a search for the best batch under a
#        latency limit: few batches, each with separate inputs and a separate reference, in fresh processes


rule search_batch:
    input:
        artifact=searched_artifact,
        model=model_files,
        graph=reference_graph,
        report=reference_report,
    output:
        "results/best_batch/{device}/{runtime}/{model}/{precision}/{rest}.json",
    log:
        "results/logs/search_batch/{device}/{runtime}/{model}/{precision}/{rest}.log",
    priority: -400  # after the cells, whose processes go in rounds
    conda:
        measuring_environment
    threads: 1024  # all of them: nothing runs beside a timed job
    resources:
        gpu=1,
    params:
        spec=search_slice,
        inputs=searched_inputs,
        lengths=searched_lengths,
        family=family_code,
        family_packages=family_packages,
        graph=reference_option,
        folder=weights_folder,
    message:
        "Searching the best batch of {wildcards.model} {wildcards.precision} {wildcards.rest} on {wildcards.runtime}"
    shell:
        "search_batch.py --device {wildcards.device} --runtime {wildcards.runtime}"
        " --model {wildcards.model} --precision {wildcards.precision} --rest {wildcards.rest}"
        " --spec {params.spec:q} --artifact {input.artifact[0]} --weights-dir {params.folder} {params.graph:q}"
        " --inputs {params.inputs:q} --log {log} --output {output} > {log} 2>&1"
