"""What is asked of a model: named axes, tensors in and out, tasks. Standard library only."""
