# Needs: a node of a cluster that the study names (docs/clusters.md).
# Makes: results/nodes/{node}.json, what machine such a node is; plans are made from it, since a head node cannot look


rule describe_node:
    output:
        "results/nodes/{node}.json",
    log:
        "results/logs/describe_node/{node}.log",
    conda:
        "../envs/cpu.yaml"
    threads: 1024  # as many as a timed job gets there: they are counted
    resources:
        gpu=1,
    params:
        gpu=node_option,
    message:
        "Asking a node what it is: {wildcards.node}"
    shell:
        "describe_node.py --node {wildcards.node} {params.gpu} --output {output} > {log} 2>&1"
