"""ONNX graphs: exported or taken over, simplified, in other precisions, quantised, fused, compared, counted."""
