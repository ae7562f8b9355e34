"""Evaluation: metrics, generation, and the file they end in."""
