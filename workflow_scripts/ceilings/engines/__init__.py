"""TensorRT engines as files: what builds them, what they are, and whether one may be loaded here."""
