"""Type hints of tasks: what they check, what they convert."""
