"""Runs plain functions in child processes.

Rules: a task travels by reference (module and name), never by value; each child has a socket of its own and runs one
call at a time, so a short call never waits behind a long one, and a child that ends takes only its own call with it,
whatever its exit code. What a call takes along and brings back is pickled by itself, so that a value that does not come
through is its task's failure, not the child's end.
``pool`` and ``handle`` are the worker's side, ``server`` starts children, ``child`` and ``running`` are the child's
side; ``frames`` is what they say to each other.
"""
