"""Checks and converts the arguments and return values of tasks by their type hints."""
