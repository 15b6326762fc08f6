"""The dashboard inside other applications: FastAPI's, Starlette's, and Django's by its ``asgi.py``."""

import os

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse as FastAPIText
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from celeriac import Celeriac
from celeriac.web import Access, dashboard

url = os.environ["WEB_TESTS_REDIS"]
app = Celeriac("mounted", broker=url, backend=url)


def signed_in(connection: HTTPConnection) -> Access:
    """Let those in whom the outer application knows."""
    if connection.headers.get("x-user") != "ann":
        return Access.NONE
    connection.scope["celeriac_user"] = "ann"
    return Access.WRITE


ops = dashboard(app, authorize=signed_in, history=os.environ["WEB_TESTS_HISTORY"])


async def front(_: object) -> PlainTextResponse:
    return PlainTextResponse("the shop")


starlette = Starlette(routes=[Route("/", front), Mount("/ops/x", ops)])


fastapi = FastAPI()
fastapi.mount("/ops/x", ops)


@fastapi.get("/", response_class=FastAPIText)
async def fastapi_front() -> str:
    return "the shop"


def django_front(_: HttpRequest) -> HttpResponse:
    return HttpResponse("the shop")


urlpatterns = [path("", django_front)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="for tests")
django.setup()
of_django = get_asgi_application()


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """What stands in ``asgi.py``: the dashboard under /ops/x, Django elsewhere."""
    if scope["type"] == "http" and scope["path"].startswith("/ops/x/"):
        await ops({**scope, "root_path": f"{scope.get('root_path', '')}/ops/x"}, receive, send)
    else:
        await of_django(scope, receive, send)
