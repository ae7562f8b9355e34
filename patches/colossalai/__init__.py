"""Corrections to ColossalAI."""
