"""While nobody can say who may come in, nobody does: the first start with bad documents and nothing on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib import Mesh
from meshlib.agent.configuration import Configuration
from meshlib.plan.snapshot import Snapshot
from meshlib.registries.base import make_update
from meshlib.resources import Source


def policy(kind: str, spec: str, *, name: str = "it") -> Source:
    version = "security.istio.io/v1" if kind.startswith(("Auth", "Peer", "Request")) else "meshlib/v1"
    text = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    return Source(f"{kind}.yaml", text.encode())


BAD = [
    policy("AuthorizationPolicy", "{action: DENY}"),
    policy("AuthorizationPolicy", "{action: DENY, rules: [{too: []}]}"),
    policy("RequestAuthentication", "{jwtRules: [{issuer: a}]}"),
    policy("PeerAuthentication", "{mtls: {mode: STRICTT}}"),
    policy("InboundPolicy", "{concurrency: {}}"),
    policy("AuthorisationPolicy", "{action: DENY, rules: [{}]}"),
    Source("broken.yaml", b"kind: [AuthorizationPolicy\n"),
]
GOOD = policy("AuthorizationPolicy", "{action: DENY, rules: [{to: [{operation: {paths: [/admin*]}}]}]}", name="good")
ELSEWHERE = policy("OutboundPolicy", "{host: 7}")


def configured(*recalled: Source) -> tuple[Configuration, list[Snapshot]]:
    snapshots: list[Snapshot] = []
    return Configuration(snapshots.append, recall=lambda: recalled), snapshots


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.text.decode().splitlines()[-1])
def test_a_policy_that_is_refused_at_the_first_start_closes_the_entrance(
    bad: Source, caplog: pytest.LogCaptureFixture
) -> None:
    configuration, snapshots = configured()
    configuration.take(make_update([], [bad, GOOD]), 1.0)
    assert "there is no older one" in snapshots[-1].closed
    assert bad.origin in snapshots[-1].closed
    assert [resource.metadata.name for resource in snapshots[-1].resources] == ["good"]
    assert "answered with 503 until they are mended" in caplog.text


def test_it_opens_when_the_documents_are_mended_and_stays_open() -> None:
    configuration, snapshots = configured()
    configuration.take(make_update([], [BAD[0]]), 1.0)
    assert snapshots[-1].closed
    configuration.take(make_update([], [GOOD]), 2.0)
    assert snapshots[-1].closed == ""
    configuration.take(make_update([], [BAD[0]]), 3.0)
    assert snapshots[-1].closed == ""
    assert [resource.metadata.name for resource in snapshots[-1].resources] == ["good"]


def test_a_document_that_forbids_nothing_closes_nothing() -> None:
    configuration, snapshots = configured()
    configuration.take(make_update([], [ELSEWHERE, GOOD]), 1.0)
    assert configuration.invalid is not None
    assert snapshots[-1].closed == ""


def test_it_closes_when_the_documents_get_worse_before_they_were_ever_good() -> None:
    configuration, snapshots = configured()
    configuration.take(make_update([], [ELSEWHERE]), 1.0)
    configuration.take(make_update([], [BAD[0], BAD[2]]), 2.0)
    assert "and 1 more" in snapshots[-1].closed
    configuration.take(make_update([], [ELSEWHERE]), 3.0)
    assert snapshots[-1].closed == ""


def test_with_a_last_good_configuration_that_one_stays_in_force() -> None:
    configuration, snapshots = configured(GOOD)
    configuration.take(make_update([], [BAD[0]]), 1.0)
    assert snapshots[-1].closed == ""
    assert [resource.metadata.name for resource in snapshots[-1].resources] == ["good"]


def test_a_last_good_configuration_that_is_none_any_more_keeps_it_closed() -> None:
    configuration, snapshots = configured(BAD[2])
    configuration.take(make_update([], [BAD[0]]), 1.0)
    assert snapshots[-1].closed


def test_policies_that_cant_be_compiled_at_the_first_start_close_it_and_calls_go_on() -> None:
    snapshots: list[Snapshot] = []

    def publish(snapshot: Snapshot) -> None:
        if any(resource.kind == "AuthorizationPolicy" for resource in snapshot.resources):
            raise RuntimeError("no such matcher")
        snapshots.append(snapshot)

    configuration = Configuration(publish)
    outbound = policy("OutboundPolicy", "{host: reviews}", name="out")
    configuration.take(make_update([], [GOOD, outbound]), 1.0)
    assert "no such matcher" in snapshots[-1].closed
    assert [resource.metadata.name for resource in snapshots[-1].resources] == ["out"]
    assert configuration.published
    assert configuration.update is None
    configuration.take(make_update([], [outbound]), 2.0)
    assert snapshots[-1].closed == ""
    configuration.take(make_update([], [GOOD, outbound]), 3.0)
    assert len(snapshots) == 2, "what was good stays in force"


def test_what_cant_be_compiled_at_all_leaves_nothing_in_force() -> None:
    def publish(_: Snapshot) -> None:
        raise RuntimeError("nothing goes")

    configuration = Configuration(publish)
    configuration.take(make_update([], [GOOD]), 1.0)
    assert not configuration.published
    assert configuration.invalid is not None


def test_the_plan_of_a_process_is_closed_and_opens(tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "policy.yaml").write_bytes(BAD[0].text)
    with Mesh(f"file://{documents}", service="reviews", state_dir=tmp_path) as mesh:
        assert mesh.plan is not None
        assert "there is no older one" in mesh.plan.inbound.closed
        assert "DENY never holds" in mesh.status().error
    (documents / "policy.yaml").write_bytes(GOOD.text)
    with Mesh(f"file://{documents}", service="reviews", state_dir=tmp_path) as mesh:
        assert mesh.plan is not None
        assert mesh.plan.inbound.closed == ""
    (documents / "policy.yaml").write_bytes(BAD[0].text)
    with Mesh(f"file://{documents}", service="reviews", state_dir=tmp_path) as mesh:
        assert mesh.plan is not None
        assert mesh.plan.inbound.closed == ""
