"""The app as one of celeriac's."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "post.settings")
django.setup()

from celeriac import Celeriac  # noqa: E402 - Django is set up first

URL = os.environ["POST_BROKER"]
app = Celeriac("post", broker=URL, backend=URL, default_queue=os.environ["POST_QUEUE"])
