"""What came out of a run: report.json, report.md and report.html from a run directory.

`reading.read` gives what the directory holds, `summary.summarize` the figures of it as a typed object.
"""
