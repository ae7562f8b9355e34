"""Corrections to Hugging Face accelerate."""
