"""Bringing a platform: its file, what this machine does with each framework, and the tier that this proves."""
