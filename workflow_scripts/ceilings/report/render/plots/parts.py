"""How the parts of an iteration look: fills that differ in grey too, and idle time always pale."""

from __future__ import annotations

from typing import Any

HOST_LOOKS: dict[str, dict[str, Any]] = {
    "framework": {"facecolor": "#E69F00", "label": "framework code"},
    "launch": {"facecolor": "#8C2D04", "label": "launch calls"},
    "copy": {"facecolor": "#F0C27B", "hatch": "xxxx", "label": "copy calls"},
    "sync": {"facecolor": "white", "hatch": "////", "label": "waiting for the device"},
}

CLASS_LOOKS: dict[str, dict[str, Any]] = {
    "gemm": {"facecolor": "#08306B", "label": "GEMM"},
    "attention": {"facecolor": "#2171B5", "hatch": "||||", "label": "attention"},
    "normalization": {"facecolor": "#41AB5D", "label": "normalisation"},
    "elementwise": {"facecolor": "#56B4E9", "hatch": "....", "label": "elementwise"},
    "gather": {"facecolor": "#74C476", "hatch": "\\\\\\\\", "label": "embedding, gather"},
    "copy": {"facecolor": "#CC79A7", "hatch": "xxxx", "label": "copies, layout"},
    "other": {"facecolor": "#807DBA", "hatch": "oo", "label": "other kernels"},
    "unknown": {"facecolor": "black", "hatch": "++++", "label": "unknown kernels"},
    "communication": {"facecolor": "#E69F00", "hatch": "----", "label": "communication"},
    "sampling": {"facecolor": "#D55E00", "hatch": "**", "label": "choice of tokens"},
}

IDLE_LOOKS: dict[str, dict[str, Any]] = {
    "host": {"facecolor": "#F5F5F5", "label": "idle: host not in a launch yet"},
    "launching": {"facecolor": "#F5F5F5", "hatch": "---", "label": "idle: host in the launch call"},
    "queued": {"facecolor": "#F5F5F5", "hatch": "\\\\", "label": "idle: launched, not started"},
    "sync": {"facecolor": "#F5F5F5", "hatch": "////", "label": "idle: done, host has not noticed"},
}

EDGE: dict[str, Any] = {"edgecolor": "0.25", "linewidth": 0.5}

PANEL = ["device", "model", "shape"]
"""What captured cells must share to stand side by side."""
