"""A fleet of celeriac and Celery workers on one Redis queue, killed and cut off at random; ``make chaos``.

Rules: every run is recorded outside the broker, by the process that ran it, before and after; what goes wrong is chosen
by a seed; the verdict is drawn from the records alone. Only celeriac workers are killed and cut off: what Celery loses
and repeats then is known, and not our matter.
"""
