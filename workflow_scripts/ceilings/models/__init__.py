"""Architectures, weights and inputs."""
