"""Clocks, the timing loop, the stop rule and the statistics of what they give."""
