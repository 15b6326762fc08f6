"""The dashboard: an ASGI application that shows a fleet, and lets a person steer it (extra ``web``)."""

from celeriac.web.access import Access, Authorize, User
from celeriac.web.dashboard import Dashboard, dashboard

__all__ = ["Access", "Authorize", "Dashboard", "User", "dashboard"]
