"""Device memory, streams, events, graph capture and the GPU monitor."""
