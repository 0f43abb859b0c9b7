"""The documentation is true: its links lead somewhere, its documents load, and its tables are what the code says."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import meshlib
from meshlib import errors
from meshlib.agent.breakers import SYNC_INTERVAL
from meshlib.agent.configuration import SUSPECT_FOR
from meshlib.agent.counting import CONNECT_WAIT, FIRST_RETRY, LONGEST_RETRY
from meshlib.agent.lookups import LOOKUP_WAIT
from meshlib.agent.redislimits import TIMEOUT
from meshlib.call.call import REPLAY_LIMIT
from meshlib.cli import main
from meshlib.cli.command import VERBS
from meshlib.errors import SettingsError
from meshlib.identity import keys
from meshlib.identity.consul import ASK_AGAIN
from meshlib.identity.files import LOOK_INTERVAL
from meshlib.identity.handshakes import HANDSHAKE_WAIT
from meshlib.identity.incoming import FIRST_WAIT
from meshlib.identity.keys import LEAST_INTERVAL, REFRESH
from meshlib.identity.lifetime import OVERDUE
from meshlib.identity.secured import KEPT, SPREAD
from meshlib.identity.sparing import EVERY
from meshlib.inbound import denials
from meshlib.inbound.checks import MOST_BODY, MOST_HEADERS
from meshlib.inbound.draining import DRAIN_DELAY
from meshlib.inbound.placing import BACK_AFTER
from meshlib.inbound.pulse import INTERVAL, SLICE
from meshlib.plan.cluster import HedgePolicy, Limits
from meshlib.plan.inbound import Inbound
from meshlib.plan.plan import DEFAULT_DEADLINE
from meshlib.policy import overload, tokencache
from meshlib.policy.asking import MOST_CHECKS
from meshlib.policy.balance import PANIC_THRESHOLD
from meshlib.policy.hashing import POINTS
from meshlib.policy.keyring import MAX_KEY_SET, MAX_KEYS, RSA_BITS
from meshlib.policy.ratelimit import LONGEST_VALUE
from meshlib.policy.retry import BACKOFF_BASE, BACKOFF_CAP, DEFAULT_RETRY, RETRY_AFTER_CAP
from meshlib.policy.tokens import MAX_HEADER, ROTATION_WAIT, SKEW
from meshlib.policy.webtoken import MAX_DEPTH, MAX_TOKEN
from meshlib.registries.base import DEFAULT_TTL, POLL_INTERVAL
from meshlib.registries.consul import address, client, query
from meshlib.registries.consul.address import consul_settings
from meshlib.registries.consul.demand import MAX_SERVICES
from meshlib.registries.consul.documents import MAX_OPERATIONS, MAX_VALUE_BYTES
from meshlib.registries.consul.registry import FORGET_AFTER
from meshlib.resources import JWTRule, MagLev, RingHash, Source, load
from meshlib.resources.documents import Metadata
from meshlib.resources.fields import APPROXIMATED
from meshlib.resources.routes import RETRY_WORDS
from meshlib.running import FILES_EVERY, OPEN_WAIT
from meshlib.settings import Settings, settings_from
from meshlib.state import adaptive
from meshlib.state.breaker import BreakerPolicy
from meshlib.state.buckets import MOST_KEYS
from meshlib.state.budget import BudgetPolicy
from meshlib.state.cluster import FRESH, SAMPLES
from meshlib.state.decisions import MOST_NAMES
from meshlib.state.endpoint import EWMA_DECAY, EWMA_SEED, FAILURE_PENALTY, PENALTY_CAP
from meshlib.state.outlier import DEFAULT_OUTLIER, OutlierPolicy
from meshlib.state.store import LINGER
from meshlib.status import Status
from tests.support.documents import fields_of, ignored, messages
from tests.support.fences import DOCS, PAGES, PROJECT, Block, blocks

REFERENCE = DOCS / "reference"
YAML = [block for page in PAGES for block in blocks(page, "yaml")]
PYTHON = [block for page in PAGES for block in blocks(page, "python")]
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
OF_SCRIPTS = {"MESHLIB_VENV", "MESHLIB_PYTHON", "MESHLIB_PARTS"}
MESSAGES = (
    ("consul.md", "When something is wrong"),
    ("identity.md", "When something is wrong"),
    ("mtls.md", "When a call fails"),
    ("jwt.md", "What is refused"),
    ("troubleshooting.md", "By the identity's error"),
)
OF_OTHERS = (
    "ACL not found", "No cluster leader", "No path to datacenter", "Permission denied", "Connect must be enabled",
    "bad certificate", "unable to get local issuer", "certificate has expired", "not yet valid", "certificate purpose",
    "gRPC error",
)  # fmt: skip


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def rows(page: Path, heading: str = "") -> Iterator[list[str]]:
    """Give the cells of the tables under a heading, or of the whole page, without the heads."""
    found = section(page, heading) if heading else text(page)
    for line in found.splitlines():
        if line.startswith("|") and not line.startswith("|--"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def section(page: Path, heading: str) -> str:
    """What stands under a heading, up to the next heading."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text(page), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page.name} has no heading {heading!r}"
    return found[1]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", text(page), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        leads_to = (page.parent / path).resolve() if path else page
        assert leads_to.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(leads_to), f"{page.name}: {target}"


def test_every_page_can_be_reached_from_the_index() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+\.md)", text(DOCS / "index.md")))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - {"index.md"}
    assert pages == linked


def test_every_page_that_the_code_names_exists() -> None:
    for source in (PROJECT / "src").rglob("*.py"):
        for name in re.findall(r"docs/[\w/.-]+\.md", text(source)):
            assert (PROJECT / name).exists(), f"{source.name}: {name}"


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_document_in_the_pages_loads(block: Block) -> None:
    source = Source(str(block), block.text.encode())
    if "invalid" in block.marks:
        assert load([source]).problems
        return
    tolerant = "ignored" in block.marks
    loaded = load([source], strict=not tolerant)
    assert not loaded.problems
    assert loaded.resources
    assert bool(loaded.notes) == tolerant


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_code_in_the_pages_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize(("name", "owner"), messages().items(), ids=list(messages()))
def test_the_fields_of_a_message_are_as_the_page_says(name: str, owner: type) -> None:
    described = [tuple(row[:3]) for row in rows(REFERENCE / "documents.md", name)][1:]
    assert described == [(f"`{field.name}`", field.type, field.default) for field in fields_of(owner)]


@pytest.mark.parametrize(("name", "owner"), messages().items(), ids=list(messages()))
def test_the_fields_that_are_ignored_are_as_the_page_says(name: str, owner: type) -> None:
    said = section(REFERENCE / "documents.md", name)
    expected = [
        f"Ignored, {reason}: {', '.join(f'`{field}`' for field in names)}." for reason, names in ignored(owner).items()
    ]
    assert re.findall(r"^Ignored, .*$", said, re.MULTILINE) == expected


def test_the_fields_that_are_approximated_are_as_the_page_says() -> None:
    paragraph = re.search(r"^Approximated: (.*?)\n\n", text(REFERENCE / "documents.md"), re.MULTILINE | re.DOTALL)
    assert paragraph is not None
    said = re.findall(r"`(\w+)(?:: \w+)?` of\s+\[(\w+)\]", paragraph[1])
    assert sorted(said) == sorted((field, owner.__name__) for owner, field in APPROXIMATED)


def test_metadata_is_described_too() -> None:
    assert messages()["Metadata"] is Metadata


def test_every_word_of_retry_on_is_described() -> None:
    said = set(re.findall(r"`([a-z0-9-]+)`", section(REFERENCE / "documents.md", "Retry conditions")))
    assert said >= set(RETRY_WORDS)


def test_the_settings_are_as_the_page_says() -> None:
    described = {row[0].strip("`") for row in rows(REFERENCE / "variables.md")} - {"variable"}
    assert described == {f"MESHLIB_{name.upper()}" for name in (*Settings._fields, "identity")}


def test_the_defaults_of_settings_are_as_the_page_says() -> None:
    described = {row[0].strip("`"): row[3] for row in rows(REFERENCE / "variables.md")}
    settings = settings_from({})
    assert described["MESHLIB_NAMESPACE"] == f"`{settings.namespace}`"
    assert described["MESHLIB_OUTBOUND"] == f"`{settings.outbound}`"
    assert settings.service is None
    assert settings.address is None
    assert settings.registry == f"sqlite://{settings.state_dir / 'registry.db'}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_no_page_names_a_variable_that_is_not_there(page: Path) -> None:
    known = {f"MESHLIB_{name.upper()}" for name in (*Settings._fields, "identity")} | OF_SCRIPTS
    assert set(re.findall(r"MESHLIB_[A-Z_]*[A-Z]", text(page))) <= known


def call_errors() -> list[type[errors.CallError]]:
    """Give the public errors of calls, without what was joined with a client's own while the tests ran."""
    named = [vars(errors)[name] for name in errors.__all__]
    return [kind for kind in named if kind in errors.CallError.__subclasses__()]


def test_the_errors_of_calls_are_as_the_page_says() -> None:
    table = [row for row in rows(REFERENCE / "errors.md", "Errors") if len(row) == 4]
    described = {row[0].strip("`"): (row[1], row[2].strip("`")) for row in table}
    for kind in call_errors():
        assert described[kind.__name__] == (kind.reason, kind.client_bases[0])


def test_the_reasons_of_denials_are_as_the_page_says() -> None:
    table = [row for row in rows(REFERENCE / "errors.md", "Errors of the inbound side") if row[0] != "status"]
    codes = {value for name, value in vars(denials).items() if name.isupper() and isinstance(value, str)}
    assert {row[1] for row in table} == codes


def test_troubleshooting_has_an_answer_to_every_error_of_a_call() -> None:
    described = {row[0].strip("`"): row[1] for row in rows(DOCS / "how-to" / "troubleshooting.md", "By the error")}
    assert {kind.__name__: kind.reason for kind in call_errors()}.items() <= described.items()


def test_the_public_names_are_as_the_page_says() -> None:
    first, _, _ = text(REFERENCE / "api.md").partition("## Mesh")
    cells = [line.split("|")[1] for line in first.splitlines() if line.startswith("| `")]
    assert sorted(name for cell in cells for name in re.findall(r"`(\w+)`", cell)) == sorted(meshlib.__all__)


def test_the_methods_of_a_mesh_are_as_the_page_says() -> None:
    described = set(re.findall(r"`(\w+)\(", "".join(row[0] for row in rows(REFERENCE / "api.md", "Mesh")))) - {"Mesh"}
    methods = {name for name in dir(meshlib.Mesh) if callable(getattr(meshlib.Mesh, name)) and name[0] != "_"}
    assert described == methods - {"ready", "aready", "look_up", "alook_up", "part"}  # for transports and middlewares


@pytest.mark.parametrize("verb", VERBS)
def test_the_options_of_a_verb_are_as_the_page_says(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    helped = set(re.findall(r"(?<![\w-])--[a-z-]+", capsys.readouterr().out))
    described = {option for row in rows(REFERENCE / "cli.md", verb) for option in re.findall(r"`(--[a-z-]+)`", row[0])}
    assert described == helped - {"--help", "--registry", "--namespace"}


def said_by_the_code() -> set[str]:
    """Give the texts in the code, with "…" for what is put in."""
    found = set()
    for source in (PROJECT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(text(source))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def messages_in_pages() -> Iterator[tuple[str, str]]:
    for page, heading in MESSAGES:
        for row in rows(DOCS / "how-to" / page, heading):
            for message in re.findall(r"`([^`]*[a-z] [^`]*)`", row[0]):
                yield page, message


def test_a_message_that_is_explained_is_one_the_code_has() -> None:
    """Those of others, Consul's and OpenSSL's, are taken on trust."""
    said = "\n".join(said_by_the_code())
    found = [
        (page, part.strip(" ():,"))
        for page, message in messages_in_pages()
        for part in re.split(r"…|[45]\d\d", message)
    ]
    ours = [(page, part) for page, part in found if " " in part and not any(one in part for one in OF_OTHERS)]
    assert len(ours) > 20
    assert [(page, part) for page, part in ours if part not in said] == []


def test_the_options_and_variables_of_consul_are_as_the_page_says() -> None:
    page = DOCS / "how-to" / "consul.md"
    described = {name for row in rows(page, "The URL") for name in re.findall(r"`(\w+)`", row[0])}
    with pytest.raises(SettingsError) as caught:
        consul_settings("consul://?nonsense=1", {})
    assert described == set(str(caught.value).partition("known: ")[2].split(", "))
    variables = {name for row in rows(page, "Variables") for name in re.findall(r"`(CONSUL_\w+)`", row[0])}
    assert variables == set(re.findall(r'"(CONSUL_[A-Z_]+)"', text(Path(address.__file__))))


def test_the_defaults_of_the_options_of_consul_are_as_the_page_says() -> None:
    described = {row[0].strip("`"): row[2].strip("`") for row in rows(DOCS / "how-to" / "consul.md", "The URL")}
    settings = consul_settings("consul://", {})
    assert described["prefix"] == settings.prefix
    assert described["check"] == settings.check
    assert described["deregister_after"] == f"{settings.deregister_after / 60:g}m"
    assert described["verify"] == str(settings.verify).lower()
    assert described["stale"] == str(settings.stale).lower()
    assert described["warning_weight"] == str(settings.warning_weight)
    assert settings.ttl is None
    assert described["ttl"] == f"{DEFAULT_TTL:g}s"


def test_the_fields_of_a_status_are_as_the_page_says() -> None:
    described = [name for row in rows(REFERENCE / "api.md", "Status") for name in re.findall(r"`(\w+)`", row[0])]
    assert described == ["ok", *Status._fields]


def test_every_verb_is_described() -> None:
    assert set(re.findall(r"^## (\w+)$", text(REFERENCE / "cli.md"), re.MULTILINE)) == set(VERBS)


def test_the_sentence_of_a_verb_begins_as_its_help_does() -> None:
    page = text(REFERENCE / "cli.md").lower()
    for verb in ("apply", "check", "version"):
        assert VERBS[verb].split(",")[0].lower() in page


BREAKER, BUDGET, OUTLIER, HEDGE, LIMITS = BreakerPolicy(), BudgetPolicy(), OutlierPolicy(), HedgePolicy(), Limits()
DEFAULTS = [
    ("deadline of a call", f"{DEFAULT_DEADLINE:g} s, up to the response head"),
    ("connect timeout", f"{LIMITS.connect_timeout:g} s"),
    ("a connection may lie idle", f"{LIMITS.idle_timeout / 3600:g} h"),
    ("largest body", f"{REPLAY_LIMIT // 1024} KiB"),
    ("first configuration", f"{OPEN_WAIT:g} s"),
    ("attempts after the first", f"{DEFAULT_RETRY.attempts}"),
    ("conditions then", f"`{DEFAULT_RETRY.words}`"),
    ("wait before retry", f"base {BACKOFF_BASE * 1000:g} ms, at most {BACKOFF_CAP / BACKOFF_BASE:g} · base"),
    ("`Retry-After`", f"up to {RETRY_AFTER_CAP:g} s"),
    ("budget", f"{BUDGET.percent:g} % of the calls of the last {BUDGET.window:g} s, and {BUDGET.min_per_second:g} a"),
    ("peak EWMA", f"e^(−Δt/{EWMA_DECAY:g} s); starts at {EWMA_SEED * 1000:g} ms"),
    ("a failure counts as", f"{FAILURE_PENALTY:g} s), at most {PENALTY_CAP:g} s"),
    ("consistent hashing: the ring", f"{RingHash().minimum_ring_size} points at least, and {POINTS} for each endpoint"),
    ("consistent hashing: Maglev's table", f"{MagLev().table_size} places"),
    ("panic threshold", f"below {PANIC_THRESHOLD:g} %"),
    ("without `outlierDetection`", f"after {DEFAULT_OUTLIER.gateway_errors} in a row"),
    ("without `outlierDetection`", f"for {DEFAULT_OUTLIER.base:g} s · n"),
    ("with it", f"{OUTLIER.server_errors}, off, {OUTLIER.local_failures}"),
    ("ejection number n", f"min({OUTLIER.base:g} s · n, {OUTLIER.longest:g} s); n falls by one for each"),
    ("ejection number n", f"each {OUTLIER.interval:g} s"),
    ("share that may be out", f"{OUTLIER.max_percent:g} %, and one always"),
    ("state of an endpoint", f"{LINGER:g} s"),
    ("opens", f"{BREAKER.error_percent:g} % failures of at least {BREAKER.minimum_calls} attempts"),
    ("opens", f"in {BREAKER.window:g} s"),
    ("stays open", f"{BREAKER.open_for:g} s; doubled each time a probe fails, up to {BREAKER.max_open_for:g} s"),
    ("probes at one time", f"{BREAKER.half_open_calls}"),
    ("a shared storage", f"{SYNC_INTERVAL:g} s"),
    ("second request after", f"p{HEDGE.percentile:g} of the last {SAMPLES} good"),
    ("second request after", f"least {HEDGE.min_delay * 1000:g} ms; computed anew every {FRESH:g} s"),
    ("share", f"{HEDGE.budget.percent:g} % of calls"),
    ("lease", f"{DEFAULT_TTL:g} s"),
    ("first call to a service", f"{LOOKUP_WAIT:g} s"),
    ("look at the registry", f"{POLL_INTERVAL:g} s"),
    ("last endpoints", f"{SUSPECT_FOR:g} s"),
    ("a query is held back", f"{query.WAIT:g} s at most"),
    ("a query is asked", f"{query.BURST} times at once, {query.RATE:g} times a second"),
    ("a failed query", f"after {query.FIRST_RETRY:g} s, doubled each time up to {query.LONGEST_RETRY:g} s"),
    ("other requests", f"{client.TIMEOUT:g} s; {client.CONNECT_TIMEOUT:g} s for a connection"),
    ("largest answer", f"{client.MAX_ANSWER_BYTES // 2**20} MiB"),
    ("services watched", f"{MAX_SERVICES}"),
    ("a service without instances", f"{FORGET_AFTER:g} s"),
    ("a critical instance", f"{consul_settings('consul://', {}).deregister_after:g} s"),
    ("documents in a transaction", f"{MAX_OPERATIONS}, {MAX_VALUE_BYTES // 1024} KiB"),
    ("files are looked at", f"{LOOK_INTERVAL:g} s"),
    ("a leaf of Consul's", f"{ASK_AGAIN[0]:g} to {ASK_AGAIN[1]:g} of its life"),
    ("an identity is called overdue", f"{OVERDUE:g} of its life"),
    ("connections made with an old", f"between {KEPT:g} and {KEPT + SPREAD:g} of what was left"),
    ("files of a DestinationRule", f"{FILES_EVERY:g} s"),
    ("mode of servers", f"{Inbound().mode}"),
    ("a signal reaches", f"{DRAIN_DELAY:g} s"),
    ("first byte, and again", f"{HANDSHAKE_WAIT:g} s"),
    ("the first certificate", f"{FIRST_WAIT:g} s"),
    ("clocks may differ", f"{SKEW:g} s"),
    ("keys are looked at again", f"after {REFRESH:g} s"),
    ("a token with an unknown key", f"waits {ROTATION_WAIT:g} s at most"),
    ("a token with an unknown key", f"again for {LEAST_INTERVAL:g} s"),
    ("a failed fetch of keys", f"after {keys.FIRST_RETRY:g} s, doubled each time up to {keys.LONGEST_RETRY:g} s"),
    ("a fetch of keys", f"{JWTRule(issuer='').timeout:g} s"),
    ("largest key set", f"{MAX_KEY_SET // 1024} KiB, {MAX_KEYS} keys; RSA of {RSA_BITS[0]} to {RSA_BITS[-1]} bits"),
    ("largest token", f"{MAX_TOKEN // 1024} KiB, JSON {MAX_DEPTH} deep"),
    ("verified tokens", f"{tokencache.MOST}, {tokencache.MOST_BYTES // 2**20} MiB"),
    ("a claim as a header", f"{MAX_HEADER} bytes"),
    ("one refusal or denial", f"every {EVERY:g} s"),
    ("checks by an authorizer: of checks", f"{MOST_CHECKS} deep"),
    ("checks by an authorizer: an answer", f"{MOST_HEADERS} headers, {MOST_BODY // 1024} KiB"),
    ("counted decisions", f"{MOST_NAMES}"),
    ("rate limits: keys", f"{MOST_KEYS} in a process"),
    ("rate limits: a value", f"{LONGEST_VALUE} characters"),
    ("GLOBAL limits: a request", f"{TIMEOUT * 1000:g} ms; {CONNECT_WAIT:g} s as long as"),
    ("overload: a signal", f"{overload.RAMPS[2][0]:g} to {overload.RAMPS[2][1]:g} times its threshold, default to"),
    ("overload: a signal", f"default to {overload.RAMPS[1][1]:g}, critical from {overload.RAMPS[0][0]:g} to"),
    ("overload: a signal", f"to {overload.RAMPS[0][1]:g} times"),
    ("overload: `Retry-After`", f"{BACK_AFTER[0]} to {sum(BACK_AFTER)} s"),
    ("overload: `x-request-start`", f"up to {overload.MOST_QUEUE_TIME:g} s"),
    ("overload: requests of one turn", f"{SLICE * 1000:g} ms"),
    ("overload: the loop's lag", f"every {INTERVAL * 1000:g} ms"),
    ("adaptive concurrency: latency", f"{adaptive.TOLERANCE:g} times the base"),
    ("adaptive concurrency: latency", f"at least {adaptive.WINDOW:g} s and {adaptive.SAMPLES} requests"),
    ("adaptive concurrency: the limit", f"by {adaptive.STEP:.0%}".replace("%", " %")),
    ("adaptive concurrency: the limit", f"falls to {adaptive.LOWEST:.0%}".replace("%", " %")),
    ("adaptive concurrency: the base", f"by {adaptive.BASE_SAMPLES} requests at {adaptive.PROBE_SHARE * 100:g} %"),
    ("adaptive concurrency: the base", f"({adaptive.BASE_WANTED} while that is enough)"),
    ("adaptive concurrency: the base", f"after {adaptive.FIRST_PROBE:g} s, then doubled each time"),
    ("adaptive concurrency: the base", f"up to {adaptive.LAST_PROBE:g} s"),
    ("GLOBAL limits: a Redis", f"after {FIRST_RETRY:g} s, doubled each time up to {LONGEST_RETRY:g} s"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "value"), DEFAULTS)
def test_a_default_is_as_the_page_says(what: str, value: str) -> None:
    described = [row[1] for row in rows(REFERENCE / "defaults.md") if row[0].startswith(what)]
    assert any(value in said for said in described), f"{what}: {value!r} is not in {described}"


def test_the_defaults_that_are_off_are_off() -> None:
    assert OUTLIER.gateway_errors == 0
    assert DEFAULT_OUTLIER.server_errors == 0
    assert not DEFAULT_OUTLIER.timeouts
    assert OUTLIER.always_one
    assert LIMITS.requests is None
    assert LIMITS.retries is None
    assert BREAKER.consecutive_failures is None
    assert HEDGE.delay is None
    assert DEFAULT_RETRY.per_try_timeout is None
    assert math.isclose(DEFAULT_TTL / 3, 3.3, abs_tol=0.1)


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_says_why_what_follows_and_what_was_measured(page: Path) -> None:
    headings = re.findall(r"^## (.*)$", text(page), re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "What was measured"]
    assert text(page).startswith(f"# {int(page.name[:4])}. ")


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
