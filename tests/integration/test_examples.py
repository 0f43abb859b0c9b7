"""The examples, started as their docstrings say and called by their names."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from meshlib.resources import Source, load
from tests.support import eventually
from tests.support.authority import Authority
from tests.support.servers import Fleet

EXAMPLES = Path(__file__).parents[2] / "examples"
LONGEST = 60

UVICORN = ("-m", "uvicorn", "--port", "0")
GUNICORN = ("-m", "gunicorn", "--workers", "2", "--bind", "127.0.0.1:0", "--no-control-socket")

SERVICES = {
    "starlette": ("reviews", (*UVICORN, "starlette_app:app")),
    "flask": ("ratings", ("-m", "flask", "--app", "flask_app", "run", "--port", "0")),
    "flask under gunicorn": ("ratings", (*GUNICORN, "flask_app:app")),
    "django": ("details", ("django_app.py", "runserver", "--noreload", "127.0.0.1:0")),
    "django under gunicorn": ("details", (*GUNICORN, "django_app:application")),
}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, EXAMPLES)
    yield fleet
    fleet.end()


def assert_clean(written: str) -> None:
    """Neither a traceback nor one of Python's warnings was written."""
    assert "Traceback" not in written
    assert "Warning" not in written


@pytest.mark.parametrize("example", SERVICES)
def test_a_service_is_called_by_the_batch_script_and_ends_when_it_is_told(example: str, fleet: Fleet) -> None:
    service, arguments = SERVICES[example]
    server = fleet.start(service, *arguments)
    fleet.wait_for(service)
    printed = fleet.run("batch.py", service)
    assert printed.count("200 ") == 3, printed
    assert '"product"' in printed
    assert_clean(printed)
    assert server.stop() in {0, -signal.SIGTERM}
    eventually(lambda: fleet.instances(service) == [])
    assert_clean(server.written())


def test_a_fastapi_service_calls_another_by_its_name(fleet: Fleet) -> None:
    web = fleet.start("web", *UVICORN, "fastapi_app:app")
    reviews = fleet.start("reviews", *UVICORN, "starlette_app:app")
    fleet.wait_for("reviews")
    (instance,) = fleet.wait_for("web")
    eventually(lambda: httpx.get(f"http://{instance.host}:{instance.port}/2").status_code == 200)
    printed = fleet.run("batch.py", "web")
    assert printed.count("200 ") == 3, printed
    assert '"stars":3' in printed
    for server in (web, reviews):
        assert server.stop() in {0, -signal.SIGTERM}
        assert_clean(server.written())


def identity(folder: Path, authority: Authority, service: str) -> str:
    """Give MESHLIB_IDENTITY of a service."""
    issued = authority.issue(f"spiffe://mesh.test/ns/default/svc/{service}")
    folder.mkdir()
    for name, content in (("tls.crt", issued.certificates), ("tls.key", issued.key), ("ca.crt", authority.roots)):
        (folder / name).write_bytes(content)
    (folder / "tls.key").chmod(0o400)
    return f"files://{folder}"


def test_the_mtls_service_answers_with_who_called(fleet: Fleet, tmp_path: Path) -> None:
    authority = Authority("root")
    server = fleet.start(
        "reviews", "mtls_app.py", "0", MESHLIB_IDENTITY=identity(tmp_path / "reviews", authority, "reviews")
    )
    fleet.wait_for("reviews")
    caller = fleet.start(None, "batch.py", "reviews", MESHLIB_IDENTITY=identity(tmp_path / "web", authority, "web"))
    assert caller.wait() == 0, caller.written()
    assert caller.written().count('"caller":"spiffe://mesh.test/ns/default/svc/web"') == 3, caller.written()
    assert_clean(caller.written())
    anybody = fleet.run("batch.py", "reviews")
    assert anybody.count('"caller":null') == 3, anybody
    assert server.stop() in {0, -signal.SIGTERM}
    assert_clean(server.written())


def test_the_client_of_httpx2_lives_in_the_mesh(fleet: Fleet) -> None:
    fleet.start("reviews", *UVICORN, "starlette_app:app")
    fleet.wait_for("reviews")
    printed = fleet.run("httpx2_client.py", "reviews")
    assert printed.count("200 ") == 2, printed
    assert_clean(printed)


def test_the_batch_script_says_what_is_wrong_when_nobody_serves(fleet: Fleet) -> None:
    client = fleet.start(None, "batch.py", "nobody")
    assert client.wait() == 1
    assert "nobody can't be called" in client.written()
    assert_clean(client.written())


def test_every_field_of_the_documents_is_applied() -> None:
    loaded = load([Source("mesh.yaml", (EXAMPLES / "mesh.yaml").read_bytes())])
    assert list(loaded.problems) == []
    assert list(loaded.notes) == []
    assert [(resource.kind, resource.metadata.name) for resource in loaded.resources] == [
        ("VirtualService", "reviews"),
        ("DestinationRule", "reviews"),
    ]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_says_how_it_is_run_and_fits_on_a_page(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith('"""')
    assert f"{path.stem}" in text.split('"""')[1]
    assert len(text.splitlines()) <= LONGEST
