"""Kernels of our own for encoder layers, in Triton, and the encoder that they make up.

One file a kernel: what it computes, the work that it does, and how it is launched. ``encoder`` puts them in order.
"""
