"""When periodic tasks run: schedules, and the slots that they name.

Rules: pure; the time is handed in, as seconds since the epoch. A slot is a moment that a schedule names. The
slots of a schedule are the same in every process, whatever moment the search begins at. Time zones are those of
``zoneinfo``; no slot is computed ahead and kept, since a zone's rules may change.
"""
