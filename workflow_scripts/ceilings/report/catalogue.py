"""The plots and the tables of a study. Standard library only: read while the workflow is parsed."""

from __future__ import annotations

from collections.abc import Collection

PLOTS = {
    "configurations": "Median latency of every configuration at the common shape, sorted, with intervals",
    "precision_crossover": "INT8 and other lower precisions against FP32, with the crossover where there is one",
    "batch_sweep": "Latency against throughput along batches, with the Pareto front",
    "best_batch": "What searches for the best batch measured, in their order: latency with its limit, throughput",
    "sequence_sweep": "Latency against sequence length",
    "token_time": "Time per output token against batch and context, of models that generate",
    "serving_latency": "What a request waits for behind a server: beyond it, queue, execution; from load to load",
    "serving_throughput": "Requests answered a second against the tail of their latency, deployments side by side",
    "batches_formed": "Batch sizes that servers formed, from load to load",
    "launch_to_kernel_map": "Where the host decides the latency and where the device does, over batch and sequence",
    "transfer_curves": "What a transfer between host and GPU takes over its size, by kind of memory",
    "roofline": "Rates that cells reach, below the roofs that their device was measured to have",
    "latency_distributions": "Latencies of single iterations, a row a process",
    "latency_budget": "Where the time of an iteration goes, on the host and on the device, runtimes side by side",
    "shape_transitions": "Latency of a shape by the shape before it, over its steady latency",
    "latency_over_sequence": "Latency of each request of a changing workload, changes of shape marked",
    "latency_over_buckets": "Expected latency and memory over the number of buckets that requests are padded up to",
    "interference": "By how much instances of cells that share a device slow each other, alone against in company",
    "overlap_gain": "Requests a second of schedules of copies and compute over those of one stream, over bytes copied",
    "overlap_timeline": "Some requests of each schedule: copies in, compute and copies out on their streams",
    "iteration_timeline": "One iteration of captured cells, side by side: host calls, launches, work of the device",
}
"""Every plot by name, and what it shows; in the order of the summary."""

GENERATION, SERVING, CHANGING, BUDGETS, FLOORS = "generation", "serving", "changing", "budgets", "floors"
SEARCHES, COLOCATION, OVERLAP, TRANSFERS = "searches", "colocation", "overlap", "transfers"
"""What not every study has, and some plots show nothing without."""

SHOWS = {
    "best_batch": SEARCHES,
    "token_time": GENERATION,
    "serving_latency": SERVING,
    "serving_throughput": SERVING,
    "batches_formed": SERVING,
    "transfer_curves": TRANSFERS,
    "roofline": FLOORS,
    "latency_budget": BUDGETS,
    "shape_transitions": CHANGING,
    "latency_over_sequence": CHANGING,
    "latency_over_buckets": CHANGING,
    "interference": COLOCATION,
    "overlap_gain": OVERLAP,
    "overlap_timeline": OVERLAP,
    "iteration_timeline": BUDGETS,
}
"""Plots of such a part; any other plot is of every study."""


def plots_of(parts: Collection[str]) -> list[str]:
    """The plots of a study that has these parts, in the order of the summary: others would stay empty."""
    return [name for name in PLOTS if name not in SHOWS or SHOWS[name] in parts]


TABLES = {
    "cells": "a row a planned cell, measured or not",
    "runs": "a row a process",
    "budgets": "a row a captured cell: where its time goes",
    "kernels": "a row a kernel of a captured cell: how often it runs and how long",
    "counted_kernels": "a row a kernel of a counted cell: what the hardware counted, and what limits it",
    "floors": "a row a cell: what the hardware allows",
    "quality": "a row an evaluated configuration: accuracy, or agreement with FP32",
    "changing": "a row a cell of changing shapes: shape tax, first appearances, padding to buckets",
    "changing_runs": "a row a process of such a cell, padded to buckets or not: its means",
    "changing_shapes": "a row a shape of such a cell: steady, first and returning latency, memory",
    "changing_buckets": "a row a number of buckets of such a cell: the best choice, its latency and memory",
    "transitions": "a row a pair of shapes that follow each other: the latency of the second one",
    "changing_requests": "a row a request of such a cell's first process",
    "shape_changes": "a row a part of what a change of the shape costs a captured cell",
    "shape_change_names": "a row a kernel, call or range that requests have more often at such a change",
    "best_batches": "a row a search for the best batch under a latency limit: its answer, and what bounds it",
    "searched_batches": "a row a batch that such a search measured, in its order",
    "colocation": "a row a co-location: gain of company over taking turns, use of the device",
    "colocated": "a row an instance of it: throughput and latency alone and in company, slowdown",
    "interference": "a row a pair of cells that shared a device: what the neighbour costs",
    "overlap": "a row a schedule of a cell: requests a second, gain over one stream, share of copy time hidden",
    "transfers": "a row a way between host and GPU and a size: what a transfer takes",
    "allocations": "a row a way to get memory and a size: what its calls cost",
    "graph_costs": "a row a number of kernels in a CUDA graph: what it costs to make and to launch",
    "copies": "a row a cell: what the copies of its inputs and outputs take, by the curves of its host and as measured",
    "serving": "a row a load of a cell behind a server: latency at the client, account of a request, batches",
    "serving_windows": "a row a window of such a load: what client and server counted",
}
"""Every table that a person would open, and what it holds. The samples are in another one."""
