"""`meshlib explain`."""

from __future__ import annotations

import argparse
import json
import random
import socket
import time
from collections.abc import Collection
from typing import Any

from meshlib.agent.configuration import closed_by
from meshlib.cli.options import add_registry
from meshlib.cli.output import UsageError, warn
from meshlib.cli.registry import read, settings_of
from meshlib.explain import Explanation, explain
from meshlib.explain_inbound import InboundExplanation, explain_inbound, visit_of
from meshlib.plan.compile import compile_plan
from meshlib.plan.plan import Plan
from meshlib.plan.snapshot import Snapshot
from meshlib.registries import Update
from meshlib.registries.base import Instance
from meshlib.resources import load, settle
from meshlib.settings import Settings
from meshlib.state.store import StateStore

__all__ = ["describe", "run"]

DESCRIPTION = """\
Say where a request would go by the registry as it is now, and why: which rules
were candidates and what failed, how traffic is divided, which endpoints there are,
deadline, retries and faults. Nothing is sent. What processes observe by themselves
(ejections, open breakers) is theirs: ask `mesh.explain` in the process for that.

With --inbound, say whether a request to SERVICE may come in, and why: each policy
that was a candidate, its rules, and what of them didn't hold. No authorizer is
asked, no token is verified, no limit is counted."""

EXAMPLES = """\
  meshlib explain http://reviews/42
  meshlib explain POST http://reviews/42 -H 'end-user: jason'
  meshlib explain GET http://reviews/42 -o json
  meshlib explain --inbound GET /api/x --service reviews \\
      --from spiffe://mesh.example/ns/default/sa/web --ip 10.0.0.7 \\
      --claims '{"iss": "https://login.example", "sub": "jason"}'"""

FAILURE = "the mesh doesn't know the host, the request may not come in, or the registry can't be read"


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_registry(parser)
    parser.add_argument("request", metavar="[METHOD] URL", nargs="+", help="without METHOD it is GET")
    parser.add_argument("--inbound", action="store_true", help="a request that comes in to --service")
    inbound = parser.add_argument_group("with --inbound")
    inbound.add_argument("--service", metavar="NAME", help="default: MESHLIB_SERVICE")
    inbound.add_argument("--label", metavar="NAME=VALUE", action="append", default=[], help="that its instance wears")
    inbound.add_argument("--from", metavar="SPIFFE-ID", default="", dest="caller", help="of the caller; default: none")
    inbound.add_argument("--ip", metavar="ADDRESS", default="", help="the caller's")
    inbound.add_argument("--port", metavar="PORT", type=int, help="of the service")
    inbound.add_argument("--claims", metavar="JSON", help="of the caller's token, as if it were verified")
    parser.add_argument(
        "-H", "--header", metavar="'NAME: VALUE'", action="append", default=[], help="may be given several times"
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")


def run(arguments: argparse.Namespace) -> int:
    """Explain; see DESCRIPTION."""
    if len(arguments.request) > 2:
        raise UsageError(f"expected METHOD URL, found {' '.join(arguments.request)!r}")
    found = _inbound(arguments) if arguments.inbound else _outbound(arguments)
    if arguments.output == "json":
        print(json.dumps(_plain(found), indent=2, ensure_ascii=False))
    else:
        print(found)
    well = found.decision.allowed if isinstance(found, InboundExplanation) else bool(found.host)
    return 0 if well else 1


def _outbound(arguments: argparse.Namespace) -> Explanation:
    for option in ("service", "label", "caller", "ip", "port", "claims"):
        if getattr(arguments, option):
            raise UsageError(
                f"--{'from' if option == 'caller' else option} is about a request that comes in: --inbound"
            )
    *method, url = arguments.request
    headers = dict(_header(text) for text in arguments.header)
    settings = settings_of(arguments)
    plan = _plan(settings, read(settings))
    try:
        return explain(plan, method[0] if method else "GET", url, headers, time.monotonic())
    except ValueError as error:
        raise UsageError(str(error)) from error


def _inbound(arguments: argparse.Namespace) -> InboundExplanation:
    settings = settings_of(arguments)
    labels = dict(_label(text) for text in arguments.label)
    settings = settings._replace(service=arguments.service or settings.service, labels=labels or settings.labels)
    if settings.service is None:
        raise UsageError("which service does it come in to? Say --service NAME, or set MESHLIB_SERVICE")
    *method, target = arguments.request
    try:
        visit = visit_of(
            method[0] if method else "GET",
            target,
            caller=arguments.caller,
            headers=dict(_header(text) for text in arguments.header),
            address=arguments.ip,
            port=arguments.port,
            claims=_claims(arguments.claims),
            host=settings.service,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    update = read(settings, serving=settings.service)
    if doubt := _unlike(settings, update.instances):
        warn(doubt)
    plan = _plan(settings, update)
    return explain_inbound(plan.inbound, plan.version, visit)


def _unlike(settings: Settings, instances: Collection[Instance]) -> str:
    """Why what is explained may hold for no process that there is, "" for no doubt: policies select by labels.

    Nothing is said of a registry without any process, such as a directory of documents.
    """
    if not instances:
        return ""
    worn = {
        ",".join(f"{name}={value}" for name, value in sorted(one.labels.items()))
        for one in instances
        if (one.service, one.namespace, one.datacenter) == (settings.service, settings.namespace, "")
    }
    asked = ",".join(f"{name}={value}" for name, value in sorted(settings.labels.items()))
    if not worn:
        return f"no instance of {settings.service} is registered in namespace {settings.namespace}: is that its name?"
    if asked in worn:
        return ""
    seen = " or ".join(labels or "no labels" for labels in sorted(worn)[:5])
    return f"instances of {settings.service} wear {seen}, and not {asked or 'no labels'}: say which with --label"


def _claims(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--claims is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"--claims is {text[:80]!r}; expected an object, as a token holds it")
    return found


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--label is {text!r}; expected name=value")
    return name, value


def _plan(settings: Settings, update: Update) -> Plan:
    """The plan that a process with these settings would begin with, by what the registry holds."""
    loaded = load(update.sources)
    if loaded.problems:
        warn("the documents can't all be applied (see meshlib check): processes go on with those they had before")
    resources, closed = settle(loaded.resources).resources, closed_by(loaded.problems)
    snapshot = Snapshot(update.instances, resources, update.version, intentions=update.intentions, closed=closed)
    return compile_plan(
        snapshot,
        settings.namespace,
        StateStore(),
        time.monotonic(),
        random.random,
        allow_any=settings.outbound == "allow-any",
        identity=settings.identity != "none",
        service=settings.service,
        labels=settings.labels,
        caller=socket.gethostname(),
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"-H is {text!r}; expected 'name: value'")
    return name.strip(), value.strip()


def _plain(value: Any) -> Any:
    """Named tuples as mappings."""
    if hasattr(value, "_asdict"):
        return {name: _plain(entry) for name, entry in value._asdict().items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value
