"""Corrections to MindFormers, and to what it uses of MindSpore."""
