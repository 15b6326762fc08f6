"""The sending sides: each a program of its own, that prints what it measured as one JSON object."""
