"""What a server adds to a model's latency: servers, the load that is put on them, and what both sides saw."""
