"""Corrections to nnScaler."""
