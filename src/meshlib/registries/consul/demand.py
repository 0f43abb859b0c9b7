"""Which questions Consul must be asked for a snapshot, and the snapshot their answers make. Pure.

What is asked depends on what has been answered: a service-router anywhere makes the chains of all called services
interesting, a chain its targets, an instance with an identity of Consul's CA the trust domain. So the questions are
worked out anew whenever an answer changes, and the number of blocking queries is the services called and a constant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from meshlib.errors import SettingsError
from meshlib.registries.base import Instance, Update, make_update
from meshlib.registries.consul import chain
from meshlib.registries.consul.documents import Documents
from meshlib.registries.consul.entries import Found, Health
from meshlib.registries.consul.questions import (
    CONFIG_KINDS,
    CONNECT_OFF,
    INTENTIONS,
    RIGHTS,
    ROOTS,
    SERVICES,
    Chained,
    Known,
    Question,
)
from meshlib.registries.consul.rights import Right, request
from meshlib.resources.intentions import Intentions

__all__ = ["MAX_SERVICES", "Scope", "believed", "demanded", "snapshot_of", "unanswered"]

MAX_SERVICES = 1000
"""Services watched at once: each has a connection to the agent."""

_LOCAL = re.compile(r"([a-z0-9][-a-z0-9]{0,62})\.([a-z0-9][-a-z0-9]{0,62})\.svc\.cluster\.local")
_ELSEWHERE = re.compile(r"([a-z0-9][-a-z0-9]{0,62})\.service\.([a-z0-9_-]{1,63})\.consul")


class Scope(NamedTuple):
    """What a snapshot is to be of.

    Attributes:
        prefix: of the keys of documents.
        hosts: full names of the services wanted.
        everything: whether all services of the catalog are wanted.
        serving: the service whose intentions are wanted, None: nobody's.
        limit: the most services to ask for.
    """

    prefix: str
    hosts: frozenset[str]
    everything: bool = False
    serving: str | None = None
    limit: int = MAX_SERVICES


_DEFAULT = Chained((), (), ())
"""What nobody configured."""


def demanded(scope: Scope, known: Known) -> dict[Question, str]:
    """The questions whose answers `scope` needs, each with the revision of what its answer depends on.

    An answer of another revision is still the last good one, and is to be asked for anew.
    """
    questions = dict.fromkeys([Question("documents", scope.prefix), *_configs()], "")
    if scope.everything:
        questions[SERVICES] = ""
    services = _services(scope, known)[: scope.limit]
    for _, service, datacenter, _ in services:
        questions[Question("health", service, datacenter)] = ""
    revision = _revision(known)
    for _, service, datacenter, namespace in services if revision else ():
        if not datacenter:
            questions[question := Question("chain", service, namespace=namespace)] = revision
            answer: Chained | None = known.get(question)
            for target in answer.targets if answer is not None else ():
                questions |= dict.fromkeys(_of_target(target), "")
    if any(question in known and known[question].native for question in questions if question.kind == "health"):
        questions[ROOTS] = ""
    if scope.serving is not None:
        questions |= _of_intentions(scope.serving, known)
    documents: Documents | None = known.get(Question("documents", scope.prefix))
    # White space changes nothing but the revision: when documents vanish, it is asked at once whether they may be read.
    questions[RIGHTS] = request(_rights(scope, questions)) + (" " if documents and documents.sources else "")
    return questions


def believed(scope: Scope, known: Known) -> bool:
    """Whether the documents Consul shows are all there are: those that the token may not read are left out."""
    return Right("key", f"{scope.prefix}/") not in (known.get(RIGHTS) or ())


def unanswered(scope: Scope, known: Known, questions: Iterable[Question]) -> list[Question]:
    """Those without whose answer no snapshot of `scope` may be made: all but what single services need, and rights."""
    dispensable = {"health", "chain", "rights"}
    return [question for question in questions if question not in known and question.kind not in dispensable]


def snapshot_of(scope: Scope, known: Known, warnings: Iterable[str] = ()) -> Update:
    """The snapshot that the answers make.

    Its `asked` lacks services that aren't answered yet, and is a set even of `everything` as long as there are any.
    """
    services = _services(scope, known)
    said = [*warnings, *_denied(known)]
    if len(services) > scope.limit:
        said.append(f"{len(services)} services are wanted; only {scope.limit} of them are watched")
        services = services[: scope.limit]
    documents: Documents = known[Question("documents", scope.prefix)]
    said += documents.warnings
    sources = list(documents.sources)
    configured, complete = bool(_revision(known)), True
    asked = set(scope.hosts) - {host for host in scope.hosts if _parsed(host) is not None}
    groups: dict[tuple[str, str], dict[tuple[str, str], Found]] = {}
    labels: dict[tuple[str, str], dict[tuple[str, str], dict[str, str]]] = {}
    for host, service, datacenter, namespace in services:
        health: Health | None = known.get(Question("health", service, datacenter))
        chained: Chained | None = known.get(Question("chain", service, namespace=namespace))
        if not configured or datacenter:
            chained = _DEFAULT
        if health is None or chained is None or not _reached(chained, known):
            complete = False
            continue
        asked.add(host)
        _gather(groups, service, datacenter, health)
        said += health.warnings
        sources += chained.sources
        said += chained.warnings
        for target in chained.targets:
            _follow_target(target, known, groups, labels)
    domain: str = known.get(ROOTS, "")
    found = [
        _announced(member, domain, labels.get(group, {}).get(key), said)
        for group, members in groups.items()
        for key, member in members.items()
    ]
    return make_update(
        [instance for instance in found if instance is not None],
        sorted(set(sources)),
        tuple(dict.fromkeys(said)),
        asked=None if scope.everything and complete else frozenset(asked),
        intentions=_intentions(scope, known),
    )


def _configs() -> Iterator[Question]:
    return (Question("config", kind) for kind in CONFIG_KINDS)


def _revision(known: Known) -> str:
    """What changes with Consul's configuration of its mesh; "" while there is none, and every chain is the default."""
    entries = [known.get(question, b"") for question in _configs()]
    return blake2b(b"\0".join(entries), digest_size=12).hexdigest() if any(entries) else ""


def _services(scope: Scope, known: Known) -> list[tuple[str, str, str, str]]:
    """Host, service, datacenter and namespace of each service wanted, in an order of their own."""
    wanted = {(host, *parsed) for host in scope.hosts if (parsed := _parsed(host)) is not None}
    if scope.everything:
        # Whatever namespace an instance of it is in; documents made of chains speak of the default one.
        wanted |= {(f"{name}.default.svc.cluster.local", name, "", "default") for name in known.get(SERVICES, ())}
    return sorted(wanted)


def _parsed(host: str) -> tuple[str, str, str] | None:
    """Service, datacenter and namespace of a full name; None when it can't be a service's in Consul."""
    if found := _LOCAL.fullmatch(host):
        return found[1], "", found[2]
    if found := _ELSEWHERE.fullmatch(host):
        return found[1], found[2], "default"
    return None


def _of_target(target: chain.Target) -> list[Question]:
    whole = Question("health", target.service, target.datacenter)
    return [whole, _members(target)] if target.subset else [whole]


def _members(target: chain.Target) -> Question:
    return Question("health", target.service, target.datacenter, target.filter, target.only_passing)


def _reached(chained: Chained, known: Known) -> bool:
    """Whether the endpoints of all of a chain's targets are known."""
    return all(question in known for target in chained.targets for question in _of_target(target))


def _of_intentions(service: str, known: Known) -> dict[Question, str]:
    questions = {INTENTIONS: "", ROOTS: ""}
    listed, domain = known.get(INTENTIONS), known.get(ROOTS)
    if listed is not None and domain is not None and CONNECT_OFF not in {listed, domain}:
        # With the trust domain in it: until that is known, the question can't be put.
        revision = f"{listed} {domain}"
        questions |= dict.fromkeys([Question("match", service), Question("authorize", service)], revision)
    return questions


def _intentions(scope: Scope, known: Known) -> Intentions | None:
    service = scope.serving
    if service is None or (rules := known.get(Question("match", service))) is None:
        return None
    if CONNECT_OFF in {known.get(INTENTIONS), known.get(ROOTS)}:
        return None
    # None: an intention speaks of any caller, so that the default is never asked for.
    return Intentions(rules, default_allow=known[Question("authorize", service)] is True)


def _rights(scope: Scope, questions: Iterable[Question]) -> Iterator[Right]:
    """What must be readable for these questions to be answered in full; what another datacenter allows is its own."""
    yield Right("key", f"{scope.prefix}/")
    services = {question.name for question in questions if question.kind == "health" and not question.datacenter}
    if scope.everything or services:
        yield Right("node", "")
    if scope.everything:
        yield Right("service", "")
    else:
        yield from (Right("service", name) for name in services)


def _denied(known: Known) -> Iterator[str]:
    for right in known.get(RIGHTS) or ():
        yield f"the ACL token needs {right.rule}: Consul leaves out of its answers what may not be read"


def _found(known: Known, question: Question) -> tuple[Found, ...]:
    health: Health | None = known.get(question)
    return health.found if health is not None else ()


_Groups = dict[tuple[str, str], dict[tuple[str, str], Found]]


def _gather(groups: _Groups, service: str, datacenter: str, health: Health) -> None:
    groups.setdefault((service, datacenter), {}).update((found.key, found) for found in health.found)


def _follow_target(
    target: chain.Target,
    known: Known,
    groups: _Groups,
    labels: dict[tuple[str, str], dict[tuple[str, str], dict[str, str]]],
) -> None:
    """Add the endpoints of a chain's target, and to its subset's members the label that documents select by."""
    group = (target.service, target.datacenter)
    whole: Health | None = known.get(Question("health", *group))
    if whole is not None:
        _gather(groups, *group, whole)
    if target.subset:
        for found in _found(known, _members(target)):
            labels.setdefault(group, {}).setdefault(found.key, {})[chain.subset_label(target.subset)] = "true"


def _announced(found: Found, domain: str, labels: Mapping[str, str] | None, said: list[str]) -> Instance | None:
    instance = found.instance
    if found.native and domain and domain != CONNECT_OFF:
        instance = msgspec.structs.replace(instance, identity=f"spiffe://{domain}{found.native}")
    try:
        return msgspec.structs.replace(instance, labels={**instance.labels, **labels}) if labels else instance
    except SettingsError as error:
        said.append(f"{instance.service} at {instance.host}:{instance.port} is passed over: {error}")
        return None
