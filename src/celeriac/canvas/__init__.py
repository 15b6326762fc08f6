"""Workflow algebra: pure functions over messages and signatures."""
