# Needs: of each cell behind a server a graph (or weights), inputs and the reference; the device that {device} names.
# A server's packages come from .venv/serving, beside those of the environment.
# Makes: results/serving/{device}/{deployment}/run{run}.json, one fresh server each


rule measure_serving:
    input:
        served_files,
    output:
        "results/serving/{device}/{deployment}/run{run}.json",
    log:
        "results/logs/measure_serving/{device}/{deployment}/run{run}.log",
    priority: round_of_run
    conda:
        serving_environment
    threads: 1024  # all of them: nothing runs beside a timed job
    resources:
        gpu=1,
    params:
        spec=serving_slice,
        options=served_options,
    message:
        "Measuring the deployment {wildcards.deployment} under load, server {wildcards.run}"
    shell:
        "measure_serving.py --device {wildcards.device} --deployment {wildcards.deployment} --run {wildcards.run}"
        " --spec {params.spec:q} {params.options:q} --log {log} --output {output} > {log} 2>&1"
