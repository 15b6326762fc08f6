"""Schedules by the sun. The library ``ephem`` knows where it stands, as for Celery: extra ``celeriac[solar]``."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from celeriac.errors import ScheduleError
from celeriac.quantities import is_number
from celeriac.schedule.days import DAY, local_day, midnight, zone_of

_DAYS = 732
"""Days to search for an event that does not come every day: a polar night, twice."""

_SAME = 3600
"""Two moments less than so many seconds apart are one event, found from two days."""


class _Event(msgspec.Struct, frozen=True):
    """How to find an event.

    :param horizon: the height at which the sun counts as on the horizon, in degrees.
    :param center: whether its center counts, not its edge.
    """

    method: str
    horizon: str
    center: bool


MOST_LAT, MOST_LON = 90.0, 180.0
"""Degrees that a place has at the most."""

EVENTS = {
    "dawn_astronomical": _Event("next_rising", "-18", center=True),
    "dawn_nautical": _Event("next_rising", "-12", center=True),
    "dawn_civil": _Event("next_rising", "-6", center=True),
    "sunrise": _Event("next_rising", "-0:34", center=False),
    "solar_noon": _Event("next_transit", "0", center=False),
    "sunset": _Event("next_setting", "-0:34", center=False),
    "dusk_civil": _Event("next_setting", "-6", center=True),
    "dusk_nautical": _Event("next_setting", "-12", center=True),
    "dusk_astronomical": _Event("next_setting", "-18", center=True),
}


class Solar(msgspec.Struct, frozen=True, tag="solar", dict=True):
    """A position of the sun; make one with ``solar``, which checks it. Slots are full seconds."""

    event: str
    lat: float
    lon: float

    def __str__(self) -> str:
        return f"{self.event} at {self.lat:g}, {self.lon:g}"

    def next(self, after: float, anchor: float = 0.0) -> float | None:
        """Return the first slot after a moment; ``None`` if there is none within two years.

        The event is looked for from the begin of each day, so that every search finds the same second.
        """
        first = local_day(zone_of(None), after) - 1
        previous = self._on(first - 1)
        for ordinal in range(first, first + _DAYS):
            moment = self._on(ordinal)
            if moment is None or (previous is not None and moment - previous < _SAME):
                continue
            if moment > after:
                return moment
            previous = moment
        return None

    def oddities(self) -> list[str]:
        """Nothing: an event means what it says."""
        return []

    @cached_property
    def _observer(self) -> tuple[Any, Any]:
        ephem = _ephem()
        observer = ephem.Observer()
        observer.lat, observer.lon = str(self.lat), str(self.lon)
        observer.elev = observer.pressure = 0
        observer.horizon = EVENTS[self.event].horizon
        return ephem, observer

    def _on(self, ordinal: int) -> float | None:
        """Return the event within a day of UTC."""
        ephem, observer = self._observer
        event = EVENTS[self.event]
        start = midnight(ordinal)
        options = {"use_center": True} if event.center else {}
        day = ephem.Date(ephem.Date("1970/1/1") + start / DAY)
        try:
            found = getattr(observer, event.method)(ephem.Sun(), start=day, **options)
        except ephem.CircumpolarError:
            return None
        moment = start + round((found - day) * DAY)
        return float(moment) if moment < start + DAY else None


def solar(event: str, lat: float, lon: float) -> Solar:
    """Describe a run at a position of the sun.

    :param event: ``sunrise``, ``sunset``, ``solar_noon``, or ``dawn_`` or ``dusk_`` with ``civil``, ``nautical`` or
        ``astronomical``.
    :param lat: degrees north.
    :param lon: degrees east.

    Raises ``ScheduleError`` for another event or place, and where ``ephem`` is not installed.
    """
    if event not in EVENTS:
        raise ScheduleError(f"solar({event!r:.100}): give one of {', '.join(EVENTS)}")
    for name, degrees, most in (("lat", lat, MOST_LAT), ("lon", lon, MOST_LON)):
        if not is_number(degrees) or abs(degrees) > most:
            raise ScheduleError(f"solar({name}={degrees!r:.100}): give degrees from -{most:g} to {most:g}")
    _ephem()
    return Solar(event, float(lat), float(lon))


def _ephem() -> Any:
    try:
        import ephem
    except ImportError:
        raise ScheduleError("schedules by the sun need ephem: pip install 'celeriac[solar]'") from None
    return ephem
