"""Runs plain functions in child processes.

Rules: a task travels by reference (module and name), never by value. Each child has two pipes of its own and runs one
call at a time, so that a short call never waits behind a long one, and a child that dies loses only its own call.
Arguments and return values are pickled each by itself, so that a value that cannot be pickled fails its task and does
not end the child.

``pool`` and ``handle`` are the worker's side, ``server`` starts children, ``child`` and ``running`` are the child's
side. ``frames`` is the format in which they talk.
"""
