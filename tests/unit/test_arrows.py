"""The arrows between the rooms, and the calls that have no place in them."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "meshlib"

# A room imports only from lower floors, and from itself.
FLOORS: dict[str, int] = {
    "errors": 0,
    "waiting": 0,
    "resources": 1,
    "context": 1,
    "state": 1,
    "policy": 2,
    "registries": 2,
    "plan": 3,
    "settings": 3,
    "call": 4,
    "explain": 5,
    "telemetry": 5,
    "identity": 5,
    "wire": 6,
    "agent": 7,
    "explain_inbound": 8,
    "status": 8,
    "running": 8,
    "mesh": 9,
    "client": 10,
    "inbound": 10,
    "__init__": 11,  # the public names
    "testing": 12,
    "cli": 12,
    "__main__": 13,
}

# Decisions are taken here: nothing in these waits, dials or looks at a clock.
PURE = ("resources", "state", "policy", "plan", "call.effects", "call.flow", "inbound.admit", "inbound.arrival",
        "inbound.authorizing", "inbound.bounds", "inbound.checks", "inbound.clocks", "inbound.cors", "inbound.denials",
        "inbound.early", "inbound.effects", "inbound.endings", "inbound.faults", "inbound.forwarded",
        "inbound.heads", "inbound.limiting", "inbound.placing", "inbound.tokens")  # fmt: skip
IMPURE_IMPORTS = {
    "anyio", "asyncio", "concurrent", "datetime", "http.client", "http.server", "httpcore", "httpx", "httpx2",
    "multiprocessing", "select", "selectors", "signal", "socket", "sqlite3", "ssl", "subprocess", "threading",
    "time", "trio", "urllib.request",
}  # fmt: skip
LOCKS = {"threading.Lock", "threading.RLock"}  # the state is shared by threads
IMPURE_CALLS = {"input", "open", "print"}

# Imported where they are used, when they are used: `import meshlib` stays close to the price of `import httpx`.
LAZY = ("cryptography", "django", "flask", "grpc", "hypothesis", "joserfc", "limits", "opentelemetry.sdk",
        "pybreaker", "pytest", "redis",
        "spiffe", "starlette", "tenacity", "trio", "uvicorn", "yaml")  # fmt: skip


Rule = Callable[[str, ast.Module, str], Iterator[str]]


class Import(NamedTuple):
    module: str
    name: str
    line: int


def imports(tree: ast.AST, package: str) -> Iterator[Import]:
    """Give what a module imports when it runs; `package` is what its relative imports start from."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from imports(ast.Module(node.orelse, []), package)
        elif isinstance(node, ast.Import):
            yield from (Import(alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: -(node.level - 1) or None] if node.level else []
            module = ".".join([*parents, *filter(None, [node.module])])
            yield from (Import(module, alias.name, node.lineno) for alias in node.names)
        else:
            yield from imports(node, package)


def room_of(module: str) -> str:
    """Return the room of `meshlib.<room>...`; the package itself is the room `__init__`."""
    return [*module.split("."), "__init__"][1]


def is_within(module: str, parents: Iterable[str]) -> bool:
    return any(module == parent or module.startswith(parent + ".") for parent in parents)


def wrong_arrows(module: str, tree: ast.Module, package: str) -> Iterator[str]:
    """Say which imports of `module` go up, or sideways."""
    room = room_of(module)
    if room not in FLOORS:
        yield f"{module}: the room {room} stands on no floor; give it one in FLOORS"
        return
    for found in imports(tree, package):
        if not is_within(found.module, ["meshlib"]):
            continue
        target = room_of(f"{found.module}.{found.name}" if found.module == "meshlib" else found.module)
        if target not in FLOORS:
            target = "__init__"  # a public name: `from meshlib import Mesh`
        if target != room and FLOORS[target] >= FLOORS[room]:
            yield f"{module}, line {found.line}: {room} may not import {target}"


def impurities(module: str, tree: ast.Module, package: str) -> Iterator[str]:
    """Say what a module that only decides may not have."""
    if not is_within(module.removeprefix("meshlib."), PURE):
        return
    for found in imports(tree, package):
        full = f"{found.module}.{found.name}"
        if is_within(full, IMPURE_IMPORTS) and not (room_of(module) == "state" and full in LOCKS):
            yield f"{module}, line {found.line}: a pure module may not import {full.rstrip('.')}"
    for call, line in calls(tree):
        if call in IMPURE_CALLS:
            yield f"{module}, line {line}: a pure module may not call {call}"


def banned(module: str, tree: ast.Module, _package: str) -> Iterator[str]:
    """Say what no module of the library may have."""
    for call, line in calls(tree):
        if call == "print" and room_of(module) != "cli":
            yield f"{module}, line {line}: a library doesn't print; only meshlib.cli does"
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"{module}, line {node.lineno}: a bare except swallows cancellation; name what is caught"


def calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node.lineno


@functools.cache
def modules() -> list[tuple[str, ast.Module, str]]:
    """Give each module of the library: its name, its tree, and the package it is in."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ("meshlib", *path.relative_to(SOURCE).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        tree = ast.parse(path.read_text("utf-8"), str(path))
        found.append((name, tree, name if is_package else ".".join(parts[:-1])))
    return found


@pytest.mark.parametrize("rule", [wrong_arrows, impurities, banned], ids=lambda rule: rule.__name__)
def test_the_library_keeps_the_rule(rule: Rule) -> None:
    assert [line for module in modules() for line in rule(*module)] == []


def test_importing_the_library_brings_in_nothing_optional() -> None:
    code = f"import sys, meshlib; print(*[name for name in {LAZY!r} if name in sys.modules])"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.split() == []


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (wrong_arrows, "meshlib.plan.route", "from meshlib.call.flow import call_flow"),
        (wrong_arrows, "meshlib.plan.route", "from ..call import flow"),
        (wrong_arrows, "meshlib.plan.route", "def late():\n    import meshlib.call.flow"),
        (wrong_arrows, "meshlib.wire.aio", "from meshlib import Mesh"),
        (wrong_arrows, "meshlib.wire.aio", "from meshlib import mesh"),
        (wrong_arrows, "meshlib.attic", ""),
        (impurities, "meshlib.policy.retry", "from time import monotonic"),
        (impurities, "meshlib.policy.retry", "import asyncio.locks"),
        (impurities, "meshlib.policy.retry", "from threading import Lock"),
        (impurities, "meshlib.state.store", "from threading import Thread"),
        (impurities, "meshlib.call.flow", "import urllib.request"),
        (impurities, "meshlib.resources", "text = open('mesh.yaml')"),
        (banned, "meshlib.wire.aio", "print('here')"),
        (banned, "meshlib.wire.aio", "try:\n    send()\nexcept:\n    pass"),
    ],
)
def test_the_rule_sees(rule: Rule, module: str, source: str) -> None:
    assert list(rule(module, ast.parse(source), module.rpartition(".")[0]))


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (wrong_arrows, "meshlib.call.flow", "from meshlib.plan.route import RoutePlan"),
        (wrong_arrows, "meshlib.call.flow", "from . import effects"),
        (wrong_arrows, "meshlib.plan.route", "if TYPE_CHECKING:\n    from meshlib.call.flow import call_flow"),
        (wrong_arrows, "meshlib.cli.get", "from meshlib import Mesh"),
        (impurities, "meshlib.state.store", "from threading import Lock"),
        (impurities, "meshlib.call.flow", "from urllib.parse import quote"),
        (impurities, "meshlib.wire.aio", "import asyncio"),
        (banned, "meshlib.cli.get", "print('here')"),
    ],
)
def test_the_rule_allows(rule: Rule, module: str, source: str) -> None:
    assert list(rule(module, ast.parse(source), module.rpartition(".")[0])) == []
