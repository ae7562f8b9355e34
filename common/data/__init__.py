"""Training data for every recipe: sources, records, templates, tokens, packing, writers.

A recipe's `train.py` needs nothing of this: it reads prepared Arrow files. What a framework's own
environment imports from here (`common.data.mindrecord`) imports its libraries where it uses them.
"""
