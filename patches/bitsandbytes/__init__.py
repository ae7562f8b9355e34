"""Corrections to bitsandbytes."""
