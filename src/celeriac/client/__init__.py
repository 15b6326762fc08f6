"""Sends tasks and waits for results."""
