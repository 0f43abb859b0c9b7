"""The verbs that only read: get, status, check, explain, version, and the help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshlib.cli.command import VERBS
from meshlib.cli.output import paint, table
from meshlib.registries.base import Instance, Update, make_update
from meshlib.resources import Intention, Intentions, Source
from meshlib.testing.memory import MemoryRegistry
from tests.unit.cli.conftest import RULE, SERVICE


@pytest.fixture
def applied(meshlib: Any, mesh_yaml: Any) -> None:
    assert meshlib("apply", "-f", mesh_yaml).status == 0


@pytest.mark.usefixtures("applied")
def test_get_shows_a_table_for_each_kind(meshlib: Any) -> None:
    assert meshlib("get").out.splitlines() == [
        "NAME                     HOSTS     ROUTES",
        "virtualservice/reviews   reviews   reviews/v1",
        "",
        "NAME                      HOST      SUBSETS",
        "destinationrule/reviews   reviews   v1",
    ]


def test_a_wide_table_shows_who_an_instance_is(meshlib: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    someone = Instance("reviews", "10.0.0.1", 80, identity="spiffe://mesh.test/reviews")
    monkeypatch.setattr("meshlib.cli.get.read", lambda _settings: make_update([someone], []))
    assert [line.split() for line in meshlib("get", "ep", "-o", "wide").out.splitlines()] == [
        ["SERVICE", "ADDRESS", "HEALTH", "LABELS", "WEIGHT", "LOCALITY", "IDENTITY"],
        ["reviews", "10.0.0.1:80", "healthy", "-", "1", "-", "spiffe://mesh.test/reviews"],
    ]
    assert "spiffe" not in meshlib("get", "ep").out


@pytest.mark.usefixtures("applied")
@pytest.mark.parametrize("kind", ["vs", "virtualservice", "VirtualServices", "VirtualService"])
def test_a_kind_has_the_names_kubectl_gives_it(meshlib: Any, kind: str) -> None:
    assert meshlib("get", kind, "-o", "name").out == "virtualservice/reviews\n"


@pytest.mark.usefixtures("applied")
def test_yaml_is_the_document_as_it_was_applied(meshlib: Any) -> None:
    assert yaml.safe_load(meshlib("get", "dr", "reviews", "-o", "yaml").out) == yaml.safe_load(RULE)


@pytest.mark.usefixtures("applied")
def test_json_is_a_list_unless_there_is_one(meshlib: Any) -> None:
    assert json.loads(meshlib("get", "vs", "-o", "json").out) == yaml.safe_load(SERVICE)
    assert [entry["kind"] for entry in json.loads(meshlib("get", "-o", "json").out)] == [
        "DestinationRule",
        "VirtualService",
    ]


@pytest.mark.usefixtures("applied")
def test_what_get_writes_can_be_applied_again(meshlib: Any, write: Any) -> None:
    for format_ in ("yaml", "json"):
        copy = write(f"copy.{format_}", meshlib("get", "-o", format_).out)
        assert meshlib("apply", "-f", copy).out.count("unchanged") == 2


@pytest.mark.usefixtures("applied")
def test_another_namespace_is_asked_for(meshlib: Any) -> None:
    assert "nothing found in namespace shop" in meshlib("get", "-n", "shop").err
    assert "default     virtualservice/reviews" in meshlib("get", "-A").out


def test_a_name_that_is_not_there_fails(meshlib: Any) -> None:
    ran = meshlib("get", "vs", "nobody")
    assert ran.status == 1
    assert "there is no virtualservice 'nobody' in namespace default" in ran.err


def test_an_unknown_kind_is_wrong_usage_and_the_known_ones_are_told(meshlib: Any) -> None:
    ran = meshlib("get", "pods")
    assert ran.status == 2
    assert "'pods' is not a kind; known: all, instances (ep), virtualservice (vs)" in ran.err


def test_a_registry_that_is_not_there_yet_is_empty_and_said_to_be(meshlib: Any) -> None:
    ran = meshlib("status")
    assert ran.status == 0
    assert "does not exist yet: whoever registers or applies next creates it" in ran.err


def test_a_registry_that_cannot_be_one_is_an_error_that_names_it(meshlib: Any) -> None:
    ran = meshlib("get", "--registry", "gopher://here")
    assert ran.status == 1
    assert ran.err.startswith("meshlib: the registry (MESHLIB_REGISTRY) is 'gopher://here'; expected sqlite:")


@pytest.mark.usefixtures("applied")
def test_status_counts_what_is_there(meshlib: Any) -> None:
    assert "documents       1 VirtualService, 1 DestinationRule\n" in meshlib("status").out


def test_status_fails_when_documents_cannot_be_applied(meshlib: Any, write: Any) -> None:
    directory = write("registry/mesh.yaml", SERVICE).parent
    ran = meshlib("status", "--registry", f"file://{directory}")
    assert ran.status == 1
    assert "a subset nobody defined" in ran.out


def test_check_tells_the_place_of_every_problem(meshlib: Any, write: Any) -> None:
    bad = write("bad.yaml", SERVICE.replace("[reviews]", "reviews").replace("networking.istio.io/v1", "v1"))
    ran = meshlib("check", "-f", bad)
    assert ran.status == 1
    assert f"{bad}, document 1, line 1, apiVersion" in ran.out
    assert f"{bad}, document 1 (VirtualService default/reviews), line 5, spec.hosts" in ran.out


def test_check_of_sound_documents_succeeds_without_a_registry(meshlib: Any, mesh_yaml: Any, tmp_path: Any) -> None:
    ran = meshlib("check", "-f", mesh_yaml)
    assert ran == (0, "2 sound documents, 0 problems, 0 warnings, 0 fields not applied as written\n", "")
    assert not (tmp_path / "state").exists()


def test_check_reports_what_is_not_applied_as_written(meshlib: Any, write: Any) -> None:
    document = write("rule.yaml", RULE + "  exportTo: ['.']\n")
    assert meshlib("check", "-f", document).status == 0
    assert "spec.exportTo: ignored: does not apply in a library" in meshlib("check", "-f", document).out
    assert meshlib("check", "--strict", "-f", document).status == 1


POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: admin}
spec:
  selector: {matchLabels: {app: reviews}}
  action: DENY
  rules:
  - to: [{operation: {paths: [/admin*], notPaths: ["*"]}}]
"""


def test_check_warns_of_a_policy_that_never_holds_and_still_succeeds(meshlib: Any, write: Any) -> None:
    ran = meshlib("check", "-f", write("policy.yaml", POLICY))
    assert ran.status == 0
    assert "(AuthorizationPolicy default/admin), line 1, spec.rules[0]: can never hold" in ran.out
    assert "1 sound document, 0 problems, 1 warning," in ran.out


@pytest.mark.parametrize(("asked", "service", "warned"), [
    (None, "ratings", True), (None, "reviews", False), (frozenset({"ratings"}), "ratings", False),
])  # fmt: skip
def test_check_of_a_registry_knows_which_labels_instances_wear_if_it_holds_them_all(
    meshlib: Any, monkeypatch: pytest.MonkeyPatch, asked: frozenset[str] | None, service: str, warned: bool
) -> None:
    held = make_update([Instance(service, "10.0.0.1", 80)], [Source("policy.yaml", POLICY.encode())], asked=asked)
    monkeypatch.setattr("meshlib.cli.check.read", lambda _settings: held)
    assert ("spec.selector.matchLabels: no registered instance" in meshlib("check").out) == warned


def test_check_warns_of_two_rules_for_one_host(meshlib: Any, write: Any) -> None:
    document = write("rules.yaml", f"{RULE}---\n{RULE.replace('{name: reviews}', '{name: again}')}")
    assert "is for reviews.default.svc.cluster.local too; join them into one" in meshlib("check", "-f", document).out


@pytest.mark.usefixtures("applied")
def test_explain_says_why(meshlib: Any) -> None:
    ran = meshlib("explain", "http://reviews/42")
    assert ran.status == 0
    assert "route   ✓ reviews[0]" in ran.out


@pytest.mark.usefixtures("applied")
def test_explain_takes_a_method_headers_and_gives_json(meshlib: Any, write: Any) -> None:
    matching = SERVICE.replace("- route:", "- match: [{headers: {end-user: {exact: jason}}}]\n    route:")
    meshlib("apply", "-f", write("matching.yaml", matching))
    found = json.loads(meshlib("explain", "post", "http://reviews/", "-H", "End-User: jason", "-o", "json").out)
    assert (found["method"], found["answer"]) == ("POST", "forward")
    missed = json.loads(meshlib("explain", "http://reviews/", "-o", "json").out)
    assert missed["answer"] == "no route matches (404)"


@pytest.mark.usefixtures("applied")
def test_explain_fails_for_a_host_the_mesh_does_not_know(meshlib: Any) -> None:
    ran = meshlib("explain", "http://elsewhere/")
    assert ran.status == 1
    assert "the mesh doesn't know this host" in ran.out


@pytest.mark.usefixtures("applied")
@pytest.mark.parametrize("arguments", [["/relative"], ["GET", "http://reviews/", "x"], ["http://a/", "-H", "rubbish"]])
def test_explain_of_rubbish_is_wrong_usage(meshlib: Any, arguments: list[str]) -> None:
    assert meshlib("explain", *arguments).status == 2


GUARD = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guard}
spec:
  selector: {matchLabels: {app: reviews, version: v2}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/web], ipBlocks: [10.0.0.0/8]}}]
    to: [{operation: {ports: ["8080"], hosts: [reviews]}}]
  - when: [{key: "request.auth.claims[role]", values: [admin]}]
"""
WEB = ("--from", "spiffe://mesh.test/ns/default/sa/web", "--ip", "10.0.0.7", "--port", "8080")


@pytest.mark.usefixtures("applied")
def test_explain_says_who_may_come_in(meshlib: Any, write: Any) -> None:
    meshlib("apply", "-f", write("guard.yaml", GUARD))
    to = ("explain", "--inbound", "GET", "/42", "--service", "reviews", "--label", "version=v2")
    let_in = meshlib(*to, *WEB)
    assert let_in.status == 0
    assert "allow     ✓ default/guard" in let_in.out
    denied = meshlib(*to)
    assert denied.status == 1
    assert "rule 2: when request.auth.claims[role] [admin] didn't hold" in denied.out
    assert "decision  denied, 403 RBAC" in denied.out
    assert meshlib(*to, "--claims", '{"role": "admin"}').status == 0
    others = json.loads(meshlib(*to[:-2], "-o", "json").out)
    assert (others["decision"]["allowed"], others["policies"]) == (True, []), "it selects version v2 only"


@pytest.mark.usefixtures("applied")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/42"], "which service"),
        (["/42", "--service", "reviews", "--from", "web"], "no SPIFFE ID"),
        (["42", "--service", "reviews"], "neither a path nor a URL"),
        (["/42", "--service", "reviews", "--claims", "[1]"], "expected an object"),
        (["/42", "--service", "reviews", "--claims", "{"], "no JSON"),
        (["/42", "--service", "reviews", "--label", "v2"], "expected name=value"),
    ],
)
def test_explain_of_a_visit_that_makes_no_sense_is_wrong_usage(meshlib: Any, arguments: list[str], says: str) -> None:
    ran = meshlib("explain", "--inbound", *arguments)
    assert ran.status == 2
    assert says in ran.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--service", "reviews", "--label", "version=v1"], ""),
        (["--service", "reviews"], "instances of reviews wear version=v1 or version=v2, and not no labels: say which"),
        (["--service", "reviews", "--label", "version=v3"], "and not version=v3"),
        (["--service", "revews"], "no instance of revews is registered in namespace default"),
        (["--service", "reviews", "-n", "shop"], "no instance of reviews is registered in namespace shop"),
        (["--service", "far"], "no instance of far is registered"),
    ],
)
def test_explain_doubts_a_service_that_nobody_has_registered(
    meshlib: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    registered = [
        Instance("reviews", "10.0.0.1", 80, labels={"version": "v1"}),
        Instance("reviews", "10.0.0.2", 80, labels={"version": "v2"}),
        Instance("far", "10.0.0.3", 80, datacenter="dc2"),
    ]
    monkeypatch.setattr("meshlib.cli.explain.read", lambda _settings, **_: make_update(registered, []))
    ran = meshlib("explain", "--inbound", "/42", *arguments)
    assert ran.status == 0
    assert (says in ran.err) if says else (ran.err == "")


def test_explain_lets_nobody_in_by_policies_that_cant_be_read(meshlib: Any, write: Any) -> None:
    mesh = write("mesh.yaml", GUARD.replace("AuthorizationPolicy", "AuthorisationPolicy"))
    ran = meshlib("explain", "--inbound", "/42", "--service", "reviews", "--registry", f"file://{mesh}")
    assert ran.status == 1
    assert "503 NOCONFIG" in ran.out


def test_explain_knows_who_may_call_by_the_registry(meshlib: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def read(_settings: Any, *, serving: str) -> Update:
        asked.append(serving)
        return make_update([], [], intentions=Intentions((Intention("*", "deny"),)))

    monkeypatch.setattr("meshlib.cli.explain.read", read)
    ran = meshlib("explain", "--inbound", "/42", "--service", "reviews")
    assert (ran.status, asked) == (1, ["reviews"])
    assert "the intention for" in ran.out


@pytest.mark.usefixtures("applied")
def test_explain_doubts_nothing_where_nobody_is_registered(meshlib: Any) -> None:
    assert meshlib("explain", "--inbound", "/42", "--service", "reviews").err == ""


@pytest.mark.usefixtures("applied")
def test_explain_of_a_call_takes_no_caller(meshlib: Any) -> None:
    ran = meshlib("explain", "http://reviews/", *WEB)
    assert ran.status == 2
    assert "--inbound" in ran.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_teaches(meshlib: Any, verb: str) -> None:
    ran = meshlib(verb, "--help")
    assert ran.status == 0
    assert "examples:" in ran.out
    assert "exit status:" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 100


def test_the_version_is_a_verb_and_an_option(meshlib: Any) -> None:
    assert meshlib("--version") == meshlib("version")
    assert meshlib("version").out.startswith("meshlib ")


@pytest.mark.parametrize("arguments", [[], ["fly"], ["get", "--fly"]])
def test_wrong_usage_is_told_on_stderr(meshlib: Any, arguments: list[str]) -> None:
    ran = meshlib(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert "usage:" in ran.err


def test_columns_are_as_wide_as_they_need_be_whatever_their_colour() -> None:
    assert list(table(["A", "B"], [["\x1b[31mlong\x1b[0m", "x"], ["", ""]])) == [
        "A      B",
        "\x1b[31mlong\x1b[0m   x",
        "-      -",
    ]


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    stream: Any = Terminal()
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert paint("x", "red") == "x"
    assert paint("x", "red", stream) == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("x", "red", stream) == "x"


def test_a_registry_in_memory_is_of_no_use_to_the_command(meshlib: Any) -> None:
    ran = meshlib("--registry", "memory:shop", "get")
    assert (ran.status, ran.out) == (2, "")
    assert "mesh.explain" in ran.err


@pytest.mark.parametrize(("version", "kind"), [("telemetry.istio.io/v1", "Telemetry"), ("v1", "Service")])
def test_a_kind_that_is_not_taken_draws_no_comparison_with_one_of_another_group(
    meshlib: Any, write: Any, version: str, kind: str
) -> None:
    ran = meshlib("check", "-f", write("other.yaml", f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"))
    assert ran.status == 1
    assert "leave documents of other kinds out" in ran.out
    assert "did you mean" not in ran.out


def test_the_package_itself_is_the_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "meshlib", "version"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.split()[0]) == (0, "meshlib")


@pytest.mark.parametrize("option", ["token_file", "scheme=https&ca_file"])
def test_a_missing_file_for_consul_is_no_registry_that_is_yet_to_be_made(option: str, meshlib: Any) -> None:
    ran = meshlib("status", "--registry", f"consul://127.0.0.1:1?{option}=/nowhere/file")
    assert (ran.status, ran.out) == (1, "")
    assert "can't be" in ran.err
    assert "does not exist yet" not in ran.err


def test_a_registry_that_is_made_but_not_filled_is_not_there_yet(meshlib: Any, tmp_path: Path) -> None:
    (tmp_path / "mesh.db").touch()
    ran = meshlib("--registry", f"sqlite://{tmp_path}/mesh.db", "get")
    assert ran.status == 0
    assert "does not exist yet" in ran.err


MADE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: consul.reviews, labels: {meshlib.io/from: consul-discovery-chain}}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: ratings}}]}]
"""

PEER = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec:
  selector: {matchLabels: {app: reviews}}
  mtls: {mode: STRICT}
  portLevelMtls: {"8080": {mode: DISABLE}}
"""


def test_check_says_which_made_documents_a_users_own_goes_before(meshlib: Any, write: Any) -> None:
    ran = meshlib("check", "-f", write("both.yaml", f"{MADE}---\n{RULE}---\n{SERVICE}"))
    assert ran.status == 0
    assert "shadowed: the VirtualService default/reviews at" in ran.out
    assert "1 field not applied as written" in ran.out
    assert "shadowed" not in meshlib("check", "-f", write("one.yaml", MADE)).out


def test_explain_goes_by_the_users_own(meshlib: Any, write: Any) -> None:
    both = write("both.yaml", f"{MADE}---\n{RULE}---\n{SERVICE}")
    assert (
        "reviews.default.svc.cluster.local|v1"
        in meshlib("explain", "--registry", f"file://{both}", "http://reviews/").out
    )


def test_a_peer_authentication_has_a_table(meshlib: Any, write: Any) -> None:
    meshlib("apply", "-f", write("peer.yaml", PEER))
    assert [line.split() for line in meshlib("get", "pa", "-o", "wide").out.splitlines()] == [
        ["NAME", "SELECTOR", "MTLS", "PORTS"],
        ["strict", "app=reviews", "STRICT", "8080:", "DISABLE"],
    ]


@pytest.mark.parametrize(
    "verb", [["get"], ["check"], ["explain", "http://reviews/"], ["delete", "vs", "reviews"]], ids=lambda verb: verb[0]
)
def test_what_the_registry_could_not_tell_is_said_beside_an_answer_of_nothing(
    meshlib: Any, monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    class Closed(MemoryRegistry):
        async def snapshot(self) -> Update:
            return make_update([], [], ("the token may not read documents",))

    monkeypatch.setattr("meshlib.cli.registry.open_registry", lambda *_: Closed())
    assert "warning: the token may not read documents\n" in meshlib(*verb).err
    ran = meshlib("status")
    assert "the token may not read documents" in ran.out
    assert not ran.err
