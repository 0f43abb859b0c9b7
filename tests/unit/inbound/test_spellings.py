"""No spelling of a request gets past a policy to a handler that real routing, behind real parsing, takes it for.

Spellings are made from a seed. Each is asked of Starlette, Flask and Django behind uvicorn's, gunicorn's and Werkzeug's
parsing: whenever the application would have answered with the guarded handler, the policy must have denied.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from asgiref.wsgi import WsgiToAsgi
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path as django_path
from django.urls import re_path
from flask import Flask, request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from meshlib import ASGIMiddleware, Mesh, WSGIMiddleware
from meshlib.plan.plan import Plan
from meshlib.policy import arriving, attributes, authorize, paths
from meshlib.policy.arriving import Arriving
from tests.support.inbound import inbound_from
from tests.support.parsing import Answer, asgi_servers, wsgi_servers

SEED = 20
SPELLINGS = 220
GUARDED = b"THE SECRET"
OPEN = b"nothing of note"


@pytest.fixture(autouse=True)
def ends_its_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """asgiref keeps a thread for what isn't async as long as the process lives."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        monkeypatch.setattr(SyncToAsync, "single_thread_executor", executor)
        yield


# Three applications, with what routing lets pass: no strict slashes, a `$` that a line break fits before, a catch-all.


def role_is(text: str | bytes | None) -> bytes:
    value = text or b""
    return b"role=[" + (value if isinstance(value, bytes) else value.encode("latin-1")) + b"]"


def starlette() -> Starlette:
    def secret(_: Request) -> PlainTextResponse:
        return PlainTextResponse(GUARDED)

    def role(asked: Request) -> PlainTextResponse:
        return PlainTextResponse(role_is(asked.headers.get("x-role")))

    def last_role(asked: Request) -> PlainTextResponse:
        return PlainTextResponse(role_is(dict(asked.headers.raw).get(b"x-role")))

    def other(_: Request) -> PlainTextResponse:
        return PlainTextResponse(OPEN)

    return Starlette(
        routes=[
            Route("/admin/users", secret),
            Route("/admin/{name}/keys", secret),
            Route("/role", role),
            Route("/last-role", last_role),
            Mount("/public", routes=[Route("/{rest:path}", other)]),
            Route("/{rest:path}", other),
        ]
    )


def flask() -> Flask:
    app = Flask("guarded")
    app.url_map.strict_slashes = False

    def secret(**_: str) -> bytes:
        return GUARDED

    app.add_url_rule("/admin/users", "secret", secret)
    app.add_url_rule("/admin/<name>/keys", "keys", secret)
    app.add_url_rule("/role", "role", lambda: role_is(request.headers.get("X-Role")))
    app.add_url_rule("/<path:rest>", "other", lambda rest: OPEN)
    return app


def django() -> WSGIHandler:
    def secret(_: HttpRequest, **more: str) -> HttpResponse:
        return HttpResponse(GUARDED)

    def role(asked: HttpRequest) -> HttpResponse:
        return HttpResponse(role_is(asked.headers.get("X-Role")))

    def other(_: HttpRequest) -> HttpResponse:
        return HttpResponse(OPEN)

    urls = [
        re_path(r"^/*admin/users/?$", secret),
        django_path("admin/<name>/keys", secret),
        django_path("role", role),
        re_path("", other),
    ]
    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=type("urls", (), {"urlpatterns": urls}), ALLOWED_HOSTS=["*"], SECRET_KEY="x", MIDDLEWARE=[]
        )
    return WSGIHandler()


def guarded_by(documents: str, app: Any, middleware: Callable[[Any, Mesh], Any]) -> Any:
    mesh = Mesh("memory:")
    mesh.plan = Plan("1", {}, (), {}, inbound=inbound_from(documents))
    return middleware(app, mesh)


def stacks(documents: str | None) -> Mapping[str, Answer]:
    """Every server before every application it can serve; before that the middleware, when there are documents."""

    def around(app: Any, middleware: Callable[[Any, Mesh], Any]) -> Any:
        return app if documents is None else guarded_by(documents, app, middleware)

    found: dict[str, Answer] = {}
    for name, answer in asgi_servers(around(starlette(), ASGIMiddleware)).items():
        found[f"Starlette, {name}"] = answer
    for name, answer in asgi_servers(around(WsgiToAsgi(flask()), ASGIMiddleware)).items():
        found[f"Flask in ASGI, {name}"] = answer
    for title, app in (("Flask", flask()), ("Django", django())):
        for name, answer in wsgi_servers(around(app, WSGIMiddleware)).items():
            found[f"{title}, {name}"] = answer
    return found


# How the guarded paths may be written.


def escaped(text: str, chance: random.Random) -> str:
    form = chance.choice(["%{:02x}", "%{:02X}"])
    return "".join(form.format(ord(char)) if chance.random() < 0.3 else char for char in text)


TURNS: list[Callable[[str, random.Random], str]] = [
    escaped,
    lambda text, chance: "".join("/" * chance.randint(1, 3) if char == "/" else char for char in text),
    lambda text, chance: text.replace("/", chance.choice(["/./", "/x/../", "/x/y/../../", "/.//"]), 1),
    lambda text, chance: text.replace("/", chance.choice(["/%2e/", "/x/%2e%2e/", "/x/.%2E/", "/..;/", "/;/"]), 1),
    lambda text, chance: text[0] + text[1:].replace("/", chance.choice(["\\", "%5c", "%2f", "%2F", "%252f"]), 1),
    lambda text, chance: text[0] + text[1:].replace("/", chance.choice(["%c0%af", "%e0%80%af", "%ef%bc%8f"]), 1),
    lambda text, chance: text + chance.choice(["/", "//", "/.", "/x/..", ";x", ";a=b/", "/;", "?", "?/x", "#", "#x"]),
    lambda text, chance: (
        text + chance.choice(["%0a", "%0d%0a", "%00", "%20", "%09", "%", "%zz", ".", "%2e", "%e2%80%8b"])
    ),
    lambda text, chance: text.replace("a", chance.choice(["%2561", "%61", "A", "%u0061", "\xe4", "%ef%bd%81"]), 1),
    lambda text, chance: (
        chance.choice(["http://reviews", "HTTP://reviews:8080", "http://", "//reviews", "http:"]) + text
    ),
    lambda text, chance: chance.choice(["/public", "/public/..", "/public/../", "/public/%2e%2e", "/\\", "\\"]) + text,
    lambda text, chance: text[1:] if chance.random() < 0.3 else text.upper(),
]


def written(base: str, amount: int, seed: int) -> Iterator[str]:
    chance = random.Random(seed)
    yield base
    for turn in TURNS:
        for _ in range(4):
            yield turn(base, chance)
    for _ in range(amount):
        text = base
        for turn in chance.sample(TURNS, chance.randint(1, 3)):
            text = turn(text, chance)
        yield text


def asking(target: str, *headers: bytes) -> bytes:
    lines = [b"GET " + target.encode("latin-1") + b" HTTP/1.1", b"host: reviews", *headers, b"connection: close"]
    return b"\r\n".join(lines) + b"\r\n\r\n"


@functools.cache
def requests_for_paths() -> tuple[bytes, ...]:
    targets = [*written("/admin/users", SPELLINGS, SEED), *written("/admin/ann/keys", SPELLINGS // 2, SEED + 1)]
    mounted = [asking("/x" + base, b"SCRIPT_NAME: /x") for base in ("/admin/users", "/admin/ann/keys")]
    return tuple(dict.fromkeys([*map(asking, targets), *mounted]))


def policy(action: str, rule: str) -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: guard}\n"
        f"spec:\n  action: {action}\n  rules: [{rule}]\n"
    )


PATH_POLICIES = {
    "DENY of the paths": policy("DENY", '{to: [{operation: {paths: [/admin/users, "/admin/{*}/keys"]}}]}'),
    "DENY of all that is under": policy("DENY", '{to: [{operation: {paths: ["/admin/*"]}}]}'),
    "DENY of all but the public": policy("DENY", '{to: [{operation: {notPaths: ["/public", "/public/*"]}}]}'),
    "ALLOW of the public": policy("ALLOW", '{to: [{operation: {paths: ["/public", "/public/*", "/role"]}}]}'),
    "ALLOW of all but these": policy("ALLOW", '{to: [{operation: {notPaths: [/admin/users, "/admin/{**}"]}}]}'),
}


@pytest.fixture
def reaching() -> Mapping[str, list[bytes]]:
    """By stack the requests that the application, by itself, answers with the guarded handler."""
    return reaching_ones()


@functools.cache
def reaching_ones() -> Mapping[str, list[bytes]]:
    return {
        name: [one for one in requests_for_paths() if GUARDED in answer(one)] for name, answer in stacks(None).items()
    }


def test_many_spellings_are_taken_for_the_guarded_path(reaching: Mapping[str, list[bytes]]) -> None:
    assert {name: len(found) for name, found in reaching.items() if len(found) < 12} == {}
    assert len({one for found in reaching.values() for one in found}) > 50


@pytest.mark.parametrize("title", PATH_POLICIES)
def test_no_spelling_of_a_path_gets_past(title: str, reaching: Mapping[str, list[bytes]]) -> None:
    past = [
        (name, one)
        for name, answer in stacks(PATH_POLICIES[title]).items()
        for one in reaching[name]
        if GUARDED in answer(one)
    ]
    assert past == []


def naive(raw_target: bytes, seen: str, exact: bool, mount: str) -> paths.PathReading:
    text = raw_target.partition(b"?")[0].decode("latin-1")
    return paths.PathReading("", (text,), (text,))


def as_seen(raw_target: bytes, seen: str, exact: bool, mount: str) -> paths.PathReading:
    return paths.PathReading("", (seen,), (seen,))


def tidied(raw_target: bytes, seen: str, exact: bool, mount: str) -> paths.PathReading:
    tidy = paths.followed(seen)
    return paths.PathReading("", (tidy,), (tidy,))


@pytest.mark.parametrize("broken", [naive, as_seen, tidied], ids=lambda broken: broken.__name__)
def test_a_reading_of_paths_that_is_simpler_would_be_got_past(
    broken: Any, reaching: Mapping[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authorize, "read_path", broken)
    monkeypatch.setattr(arriving, "read_path", broken)
    answers = stacks(PATH_POLICIES["DENY of the paths"])
    assert any(GUARDED in answer(one) for name, answer in answers.items() for one in reaching[name])


# A header that says what the caller may do, as each application reads it: the first, the last, or all of them joined.

NAMES = [b"x-role", b"X-Role", b"X-ROLE", b"x_role", b"X_Role", b"x-role ", b"xrole"]
VALUES = [
    b"guest",
    b"admin",
    b"user",
    b"",
    b" guest ",
    b"\tguest",
    b"guest,admin",
    b"admin, guest",
    b"guest;q=1",
    b"Guest",
]


@functools.cache
def requests_for_roles() -> tuple[bytes, ...]:
    chance = random.Random(SEED)
    known = [
        (b"x-role: guest",),
        (b"x-role: admin", b"x-role: guest"),
        (b"x-role: guest", b"x-role: admin"),
        (b"x-role: admin", b"x_role: guest"),
        (b"x_role: guest", b"x-role: admin"),
    ]
    made = [
        tuple(chance.choice(NAMES) + b":" + chance.choice(VALUES) for _ in range(chance.randint(1, 3)))
        for _ in range(SPELLINGS // 2)
    ]
    asked = [(target, lines) for target in ("/role", "/last-role") for lines in known]
    asked += [(chance.choice(["/role", "/last-role"]), lines) for lines in made]
    return tuple(asking(target, *lines) for target, lines in asked)


def role_in(answer: bytes) -> bytes | None:
    """Whom the application took the caller for; None: it wasn't asked, or heard of nobody."""
    found = re.search(rb"role=\[(.*)\]", answer)
    return (found[1].strip() or None) if found is not None else None


def header(action: str, values: str) -> str:
    return policy(action, f'{{when: [{{key: "request.headers[X-Role]", {values}}}]}}')


ROLE_POLICIES: dict[str, tuple[str, Callable[[bytes], bool]]] = {
    "DENY of guests": (header("DENY", "values: [guest]"), lambda role: role != b"guest"),
    "DENY of all but admins": (header("DENY", "notValues: [admin]"), lambda role: role == b"admin"),
    "ALLOW of admins": (header("ALLOW", "values: [admin]"), lambda role: role == b"admin"),
    "ALLOW of all but guests": (header("ALLOW", "notValues: [guest]"), lambda role: role != b"guest"),
}


def roles_past(title: str) -> Iterator[tuple[str, bytes, bytes]]:
    documents, right = ROLE_POLICIES[title]
    for name, answer in stacks(documents).items():
        for one in requests_for_roles():
            if (role := role_in(answer(one))) is not None and not right(role):
                yield name, one, role


def test_many_spellings_of_a_header_are_taken_for_it() -> None:
    for name, answer in stacks(None).items():
        roles = [role_in(answer(one)) for one in requests_for_roles()]
        assert sum(role == b"guest" for role in roles) > 6, name


@pytest.mark.parametrize("title", ROLE_POLICIES)
def test_no_spelling_of_a_header_gets_past(title: str) -> None:
    assert list(roles_past(title)) == []


def first_value(name: str, values: Sequence[str], forbidding: bool) -> Callable[[Arriving], bool]:
    wanted = [value.encode() for value in values]
    return lambda head: next(iter(head.values(name.lower().encode())), b"") in wanted


def joined_values(name: str, values: Sequence[str], forbidding: bool) -> Callable[[Arriving], bool]:
    return lambda head: head.header(name.lower().encode()) in values


@pytest.mark.parametrize(
    ("broken", "title"),
    [
        (first_value, "DENY of guests"),
        (first_value, "ALLOW of admins"),
        (joined_values, "DENY of guests"),
        (joined_values, "ALLOW of all but guests"),
        (joined_values, "ALLOW of admins"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_reading_of_headers_that_is_simpler_would_be_got_past(
    broken: Any, title: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attributes, "any_header", broken)
    assert any(roles_past(title))
