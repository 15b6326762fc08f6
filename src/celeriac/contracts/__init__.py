"""The contracts: what the wings in ``servers`` implement, and all else in celeriac relies on.

Rules: a contract is a protocol, so a class needs no import from here to implement it. ``celeriac.testing`` has the
suites that show whether one does.
"""
