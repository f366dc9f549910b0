# Needs: traces that others made, which the study names under captures.
# Makes: results/explained/{capture}.json, .md with .svg, .html; on request .perfetto.json, which ui.perfetto.dev opens,
#        and {after}-against-{before}.md and .html: what grew from one capture to the other


rule explain_capture:
    output:
        "results/explained/{capture}.json",
    log:
        "results/logs/explain_capture/{capture}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        path=capture_path,
        options=capture_options,
        contents=capture_contents,
    message:
        "Explaining the capture {wildcards.capture}"
    shell:
        # One that cannot be read gives a record that says why; the others go on.
        "explain_capture.py {params.path:q} --name {wildcards.capture} {params.options:q} --record-failure"
        " --output {output} > {log} 2>&1"


rule write_explanation:
    input:
        rules.explain_capture.output,
    output:
        markdown=report(
            "results/explained/{capture}.md",
            category="Captures",
            labels={"capture": "{capture}", "shows": "where its time goes, as text"},
            caption="../docs/captions/explained.rst",
        ),
        picture="results/explained/{capture}.svg",
        html=report(
            "results/explained/{capture}.html",
            category="Captures",
            labels={"capture": "{capture}", "shows": "where its time goes"},
            caption="../docs/captions/explained.rst",
        ),
    log:
        "results/logs/write_explanation/{capture}.log",
    conda:
        "../envs/cpu.yaml"
    message:
        "Writing the page of the capture {wildcards.capture}"
    shell:
        "write_explanation.py --record {input} --markdown {output.markdown} --picture {output.picture}"
        " --html {output.html} > {log} 2>&1"


rule mark_critical_path:
    output:
        "results/explained/{capture}.perfetto.json",
    log:
        "results/logs/mark_critical_path/{capture}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        path=capture_path,
        options=capture_options,
        contents=capture_contents,
    message:
        "Marking the critical path of the capture {wildcards.capture} for Perfetto"
    shell:
        # One without times gives a trace without events that says why; the others go on.
        "explain_capture.py {params.path:q} --name {wildcards.capture} {params.options:q} --record-failure"
        " --perfetto {output} > {log} 2>&1"


rule compare_explained:
    input:
        before="results/explained/{before}.json",
        after="results/explained/{after}.json",
    output:
        markdown=report(
            "results/explained/{after}-against-{before}.md",
            category="Captures",
            labels={"capture": "{after} against {before}", "shows": "what grew, as text"},
            caption="../docs/captions/explained.rst",
        ),
        html=report(
            "results/explained/{after}-against-{before}.html",
            category="Captures",
            labels={"capture": "{after} against {before}", "shows": "what grew"},
            caption="../docs/captions/explained.rst",
        ),
    log:
        "results/logs/compare_explained/{after}-against-{before}.log",
    conda:
        "../envs/cpu.yaml"
    message:
        "Comparing the capture {wildcards.after} with {wildcards.before}"
    shell:
        "compare_explained.py {input.before} {input.after} --output {output.markdown} --html {output.html} > {log} 2>&1"
