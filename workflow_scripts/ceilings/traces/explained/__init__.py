"""The account of a recording: its iterations, what their time consists of, and what would make them shorter."""
