"""Pools, one per file."""
