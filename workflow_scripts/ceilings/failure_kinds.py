"""The ways in which a cell can fail, and what each one means: words of the tables."""

FAILURE_KINDS = {
    "out-of-memory": "the memory did not suffice",
    "damaged": "a file of the model (weights, configuration, tokenizer) is damaged, missing or of another model",
    "unsupported": "the runtime has no implementation for an operator or type of the graph",
    "parity": "the outputs differ from the FP32 reference by more than the tolerance, or cannot be compared with it",
    "unread": "nothing says whether the generated tokens are right",
    "fallback": "part of the graph would have run on another device than the cell names",
    "engine-incompatible": "the engine is damaged, or was built for another GPU or library version",
    "outside-profiles": "no optimisation profile of the engine takes the shape",
    "invalid-profile": "an optimisation profile cannot be (min above opt, or opt above max)",
    "missing-scales": "a quantised graph has Q/DQ pairs without usable scales",
    "workspace": "no implementation of some layer fits into the workspace",
    "build-failed": "the engine's builder gave up for another reason",
    "runtime-error": "the runtime ended with an error; the message quotes it",
    "crashed": "the process was ended by a signal",
    "timed-out": "the time limit passed",
}
"""Failure kinds and what each one means."""
