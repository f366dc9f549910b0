"""Workloads of each kind: one output and two, tokens and images."""

from __future__ import annotations

from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

VOCABULARY = 100
TOKENS = ("batch", "sequence")

TEXT = (
    TensorSpec("input_ids", "int64", TOKENS, "tokens", 5, VOCABULARY - 1),
    TensorSpec("attention_mask", "int64", TOKENS, "mask"),
)
IMAGE = (TensorSpec("pixel_values", "float32", ("batch", 3, "image", "image"), "pixels"),)

CLASSIFIER = Workload(
    TASKS["sequence-classification"], TEXT, (TensorSpec("logits", "float32", ("batch", 2)),), "text_encoder"
)
ANSWERER = Workload(
    TASKS["question-answering"],
    TEXT,
    (TensorSpec("start_logits", "float32", TOKENS), TensorSpec("end_logits", "float32", TOKENS)),
    "text_encoder",
)
EMBEDDER = Workload(
    TASKS["image-embedding"], IMAGE, (TensorSpec("embedding", "float32", ("batch", 16)),), "image_encoder"
)
