"""Llama 3 weights: recognise, inspect, make, convert and verify them, one tensor at a time."""
