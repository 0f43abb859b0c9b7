"""A Django service in the mesh, in one file: `details`.

MESHLIB_SERVICE=details python examples/django_app.py runserver 8004
MESHLIB_SERVICE=details gunicorn --chdir examples --bind 127.0.0.1:8004 django_app:application
python examples/batch.py details
"""

from __future__ import annotations

import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

import meshlib

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["details"],  # callers say the service's name, and not where it runs
        ROOT_URLCONF=__name__,
        SECRET_KEY="this example signs nothing",
        WSGI_APPLICATION="django_app.application",
    )


def details(_: HttpRequest, product: int) -> JsonResponse:
    return JsonResponse({"product": product, "pages": 100 + product, "seconds left": meshlib.remaining()})


urlpatterns = [path("<int:product>", details)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)  # it imports this module for its application
else:
    application = meshlib.WSGIMiddleware(get_wsgi_application())
