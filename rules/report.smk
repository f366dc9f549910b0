# Needs: run records, parity records, reports of the graphs, provenance of the weights.
# Makes: results/plan.json, tables/, plots/, summary.md with summary_table.md and engineering_observations.md,
#        report.html; where asked for by name comparison.md and comparison.html, trends.md and trends.html, next.md,
#        next.json and next.yaml


localrules:
    plan_study,  # says what the process knows that plans


rule plan_study:
    output:
        "results/plan.json",
    log:
        "results/logs/plan_study.log",
    params:
        *STUDY.plan_in_short,
    message:
        "Writing down the plan of the study"
    run:
        Path(output[0]).write_text(STUDY.plan(), encoding="utf-8")


rule collect_cells:
    input:
        # A literal path: beside rules.plan_study.output, Snakemake's time to plan grows with the square of the runs.
        plan="results/plan.json",
        runs=TARGETS.runs,
        texts=TARGETS.texts,
        floors=TARGETS.floors,
        engines=TARGETS.engine_records,
        budgets=TARGETS.budgets,
        counters=TARGETS.counters,
        quality=TARGETS.qualities,
        changing=TARGETS.changing_records,
        changes=TARGETS.changes,
        searches=TARGETS.search_records,
        serving=TARGETS.served_runs,
        colocation=TARGETS.colocated_runs,
        overlap=TARGETS.overlap_records,
        transfers=TARGETS.transfers,
    output:
        tables_to_read("results/tables"),
        expand("results/tables/{table}.parquet", table=TABLES),
        "results/tables/samples.parquet",
        "results/tables/serving_samples.parquet",
        "results/tables/tables.json",
    log:
        "results/logs/collect_cells.log",
    conda:
        "../envs/cpu.yaml"
    params:
        recorded=recorded_records,
    message:
        "Collecting {} run records".format(len(TARGETS.runs) + len(TARGETS.recorded_runs))
    shell:
        "collect_cells.py --plan {input.plan} --output-dir results/tables > {log} 2>&1"


rule draw_plot:
    input:
        tables=rules.collect_cells.output,
        budgets=TARGETS.budgets,
    output:
        svg=report(
            "results/plots/{plot}.svg",
            category="Plots",
            labels=plot_labels,
            caption="../docs/captions/plot.rst",
        ),
        png="results/plots/{plot}.png",
    log:
        "results/logs/draw_plot/{plot}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        plot=code_of_plot,
    message:
        "Drawing {wildcards.plot}"
    shell:
        "draw_plot.py --plot {wildcards.plot} --tables results/tables"
        " --output-svg {output.svg} --output-png {output.png} > {log} 2>&1"


rule write_summary:
    input:
        plan=rules.plan_study.output,
        tables=rules.collect_cells.output,
        plots=expand("results/plots/{plot}.{kind}", plot=DRAWN, kind=("svg", "png")),
        evidence=summary_evidence,
        explained=ancient(TARGETS.explained_pages),  # it links to them
        side_by_side=TARGETS.side_by_side,
        budgets=TARGETS.budgets,
        counters=TARGETS.counters,
        rooflines=TARGETS.kernel_rooflines,
    output:
        summary=report(
            "results/summary.md",
            category="Summary",
            labels={"shows": "summary: what to deploy, what bounds it, what to try next"},
            caption="../docs/captions/summary.rst",
        ),
        table=report(
            "results/summary_table.md",
            category="Summary",
            labels={"shows": "summary table: every cell in one table"},
            caption="../docs/captions/notes.rst",
        ),
        observations=report(
            "results/engineering_observations.md",
            category="Summary",
            labels={"shows": "engineering observations: every finding with its evidence"},
            caption="../docs/captions/notes.rst",
        ),
    log:
        "results/logs/write_summary.log",
    conda:
        "../envs/cpu.yaml"
    params:
        plots=DRAWN,
        recorded=TARGETS.recorded_evidence,
        recorded_contents=recorded_evidence,
    message:
        "Writing the summary"
    shell:
        "write_summary.py --plan {input.plan} --tables results/tables --plots results/plots"
        " --evidence {input.evidence} {params.recorded} --output-dir results > {log} 2>&1"


rule write_report:
    input:
        plan=rules.plan_study.output,
        tables=rules.collect_cells.output,
        evidence=summary_evidence,
        budgets=TARGETS.budgets,
        counters=TARGETS.counters,
    output:
        report(
            "results/report.html",
            category="Summary",
            labels={"shows": "report: findings, every cell to filter and open, charts"},
            caption="../docs/captions/report.rst",
        ),
    log:
        "results/logs/write_report.log",
    conda:
        "../envs/cpu.yaml"
    params:
        recorded=TARGETS.recorded_evidence,
        recorded_contents=recorded_evidence,
    message:
        "Writing the report"
    shell:
        "write_report.py --plan {input.plan} --tables results/tables --evidence {input.evidence} {params.recorded}"
        " --output {output} > {log} 2>&1"


rule write_next:
    # results/predictions.json is no output: Snakemake deletes outputs before a job, and this is only appended to.
    input:
        plan=rules.plan_study.output,
        tables=rules.collect_cells.output,
    output:
        page=report(
            "results/next.md",
            category="Summary",
            labels={"shows": "next: what to measure next, with predictions"},
            caption="../docs/captions/next.rst",
        ),
        json="results/next.json",
        yaml="results/next.yaml",
    log:
        "results/logs/write_next.log",
    conda:
        "../envs/cpu.yaml"
    params:
        study=STUDY.next_slice,
        record=STUDY.next_record,
    message:
        "Writing what to measure next"
    shell:
        "write_next.py --plan {input.plan} --tables results/tables --study {params.study:q} --results results"
        " {params.record} --json {output.json} --yaml {output.yaml} --output {output.page} > {log} 2>&1"


rule compare_results:
    input:
        before=tables_before,
        after=rules.collect_cells.output,
    output:
        markdown="results/comparison.md",
        html=report(
            "results/comparison.html",
            category="Comparison",
            labels={"shows": "these results against earlier ones"},
            caption="../docs/captions/comparison.rst",
        ),
    log:
        "results/logs/compare_results.log",
    conda:
        "../envs/cpu.yaml"
    params:
        options=comparison_options,
    message:
        "Comparing with earlier results"
    shell:
        # As a target it reports; by hand, in CI, its exit status tells.
        "compare_results.py --after results {params.options:q} --report-only"
        " --output {output.markdown} --html {output.html} > {log} 2>&1"


rule trend_results:
    input:
        newest=rules.collect_cells.output,
    output:
        markdown="results/trends.md",
        html=report(
            "results/trends.html",
            category="Comparison",
            labels={"shows": "these results after earlier ones, with change-points"},
            caption="../docs/captions/trends.rst",
        ),
    log:
        "results/logs/trend_results.log",
    conda:
        "../envs/cpu.yaml"
    params:
        options=trend_options,
        earlier=trend_contents,
    message:
        "Following results over time"
    shell:
        # As a target it reports; by hand, in CI, its exit status tells.
        "trend_results.py {params.options:q} --report-only --output {output.markdown} --html {output.html} > {log} 2>&1"
