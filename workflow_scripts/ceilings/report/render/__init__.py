"""Markdown, HTML and plots."""
