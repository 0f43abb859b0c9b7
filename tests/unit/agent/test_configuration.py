"""From what the registry says to the plan in force."""

from __future__ import annotations

import pytest

from meshlib.agent.configuration import SUSPECT_FOR, Configuration
from meshlib.errors import RegistryError
from meshlib.plan.snapshot import Snapshot
from meshlib.registries.base import Instance, make_update
from meshlib.resources import Source

GOOD = Source(
    "good.yaml", b"apiVersion: meshlib/v1\nkind: OutboundPolicy\nmetadata: {name: a}\nspec: {host: reviews}\n"
)
BAD = Source("bad.yaml", b"apiVersion: meshlib/v1\nkind: OutboundPolicy\nmetadata: {name: a}\nspec: {host: 7}\n")
AWAY = RegistryError("sqlite:///mesh.db", "is locked")


def reviews(port: int = 8001) -> Instance:
    return Instance(service="reviews", host="127.0.0.1", port=port, id=f"reviews-{port}")


class Published:
    """What was put in force."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.configuration = Configuration(self.snapshots.append)

    @property
    def last(self) -> Snapshot:
        return self.snapshots[-1]


@pytest.fixture
def mesh() -> Published:
    return Published()


def test_an_update_is_put_in_force(mesh: Published) -> None:
    mesh.configuration.take(make_update([reviews()], [GOOD]), 1.0)
    assert [instance.port for instance in mesh.last.instances] == [8001]
    assert [resource.metadata.name for resource in mesh.last.resources] == ["a"]
    assert mesh.configuration.changed_at == 1.0


def test_an_error_leaves_everything_in_force_and_is_visible_with_its_age(mesh: Published) -> None:
    mesh.configuration.take(make_update([reviews()], [GOOD]), 1.0)
    mesh.configuration.take(AWAY, 2.0)
    mesh.configuration.take(RegistryError("sqlite:///mesh.db", "is still locked"), 5.0)
    assert len(mesh.snapshots) == 1
    assert mesh.configuration.trouble is not None
    assert mesh.configuration.trouble.since == 2.0
    assert "still" in str(mesh.configuration.trouble.error)


def test_the_next_update_clears_the_error(mesh: Published) -> None:
    mesh.configuration.take(AWAY, 1.0)
    mesh.configuration.take(make_update([reviews()], []), 2.0)
    assert mesh.configuration.trouble is None


def test_a_warning_is_visible_while_it_holds_and_logged_once(mesh: Published, caplog: pytest.LogCaptureFixture) -> None:
    for now, ports in ((1.0, [8001]), (2.0, [8001, 8002])):
        instances = [reviews(port) for port in ports]
        mesh.configuration.take(make_update(instances, [], ["the token needs a rule"]), now)
    assert mesh.configuration.warnings == ("the token needs a rule",)
    assert [record.message for record in caplog.records] == ["the token needs a rule"]
    mesh.configuration.take(make_update([reviews()], []), 3.0)
    assert mesh.configuration.warnings == ()


def test_bad_documents_leave_the_old_ones_in_force(mesh: Published) -> None:
    mesh.configuration.take(make_update([reviews()], [GOOD]), 1.0)
    mesh.configuration.take(make_update([reviews()], [BAD]), 2.0)
    assert [resource.metadata.name for resource in mesh.last.resources] == ["a"]
    assert mesh.configuration.invalid is not None
    assert "bad.yaml, document 1" in str(mesh.configuration.invalid.error)


STRICT = Source(
    "strict.yaml",
    b"apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: s}\nspec: {mtls: {mode: STRICT}}\n",
)


def test_at_the_start_bad_documents_give_way_to_those_that_were_good_the_last_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    snapshots: list[Snapshot] = []
    configuration = Configuration(snapshots.append, recall=lambda: (GOOD, STRICT))
    configuration.take(make_update([reviews()], [BAD]), 1.0)
    assert [resource.metadata.name for resource in snapshots[-1].resources] == ["a", "s"]
    assert configuration.invalid is not None
    assert "those of the last good configuration are in force" in caplog.text
    configuration.take(make_update([reviews()], [GOOD]), 2.0)
    assert [resource.metadata.name for resource in snapshots[-1].resources] == ["a"]


@pytest.mark.parametrize("before", [(), (BAD,)])
def test_at_the_very_first_start_one_bad_document_doesnt_undo_what_secures_connections(
    before: tuple[Source, ...], mesh: Published, caplog: pytest.LogCaptureFixture
) -> None:
    mesh.configuration = Configuration(mesh.snapshots.append, recall=lambda: before)
    other = Source("other.yaml", GOOD.text.replace(b"name: a", b"name: b"))
    for now, port in ((1.0, 8001), (2.0, 8002)):
        mesh.configuration.take(make_update([reviews(port)], [BAD, other, STRICT]), now)
        assert [resource.metadata.name for resource in mesh.last.resources] == ["s"]
    assert "only the good ones about who connects to whom" in caplog.text
    mesh.configuration.take(make_update([reviews()], [other]), 3.0)
    assert [resource.metadata.name for resource in mesh.last.resources] == ["b"]


def test_bad_documents_dont_keep_new_endpoints_out(mesh: Published) -> None:
    mesh.configuration.take(make_update([reviews()], [GOOD]), 1.0)
    mesh.configuration.take(make_update([reviews(), reviews(8002)], [BAD]), 2.0)
    assert [instance.port for instance in mesh.last.instances] == [8001, 8002]


def test_mended_documents_clear_the_error(mesh: Published) -> None:
    mesh.configuration.take(make_update([reviews()], [BAD]), 1.0)
    mesh.configuration.take(make_update([reviews()], [GOOD]), 2.0)
    assert mesh.configuration.invalid is None
    assert len(mesh.last.resources) == 1


def test_strict_refuses_what_would_be_ignored() -> None:
    ignored = Source("x.yaml", GOOD.text.replace(b"{host: reviews}", b"{host: reviews, colour: red}"))
    published = Published()
    published.configuration = Configuration(published.snapshots.append, strict=True)
    published.configuration.take(make_update([], [ignored]), 1.0)
    assert published.configuration.invalid is not None
    assert "colour" in str(published.configuration.invalid.error)


def test_the_last_endpoints_of_a_service_are_kept_for_a_while(mesh: Published) -> None:
    mesh.configuration.take(make_update([reviews()], []), 1.0)
    again = mesh.configuration.take(make_update([], []), 10.0)
    assert [instance.port for instance in mesh.last.instances] == [8001]
    assert again == SUSPECT_FOR


def test_and_let_go_when_nobody_comes_back(mesh: Published) -> None:
    mesh.configuration.take(make_update([reviews()], []), 1.0)
    mesh.configuration.take(make_update([], []), 10.0)
    assert mesh.configuration.revisit(10.0 + SUSPECT_FOR) is None
    assert mesh.last.instances == ()


def test_a_service_that_comes_back_is_taken_as_it_is(mesh: Published) -> None:
    mesh.configuration.take(make_update([reviews()], []), 1.0)
    mesh.configuration.take(make_update([], []), 10.0)
    assert mesh.configuration.take(make_update([reviews(8002)], []), 11.0) is None
    assert [instance.port for instance in mesh.last.instances] == [8002]


def test_a_service_that_loses_some_of_its_endpoints_loses_them_at_once(mesh: Published) -> None:
    mesh.configuration.take(make_update([reviews(), reviews(8002)], []), 1.0)
    mesh.configuration.take(make_update([reviews(8002)], []), 2.0)
    assert [instance.port for instance in mesh.last.instances] == [8002]


def test_a_snapshot_that_cant_be_compiled_is_an_error_and_nothing_more() -> None:
    def refuse(snapshot: Snapshot) -> None:
        raise ZeroDivisionError

    configuration = Configuration(refuse)
    configuration.take(make_update([reviews()], []), 1.0)
    assert not configuration.published
    assert configuration.invalid is not None
    assert isinstance(configuration.invalid.error, ZeroDivisionError)


def test_what_is_kept_on_disk_is_what_was_good(mesh: Published) -> None:
    mesh.configuration.take(make_update([reviews()], [GOOD]), 1.0)
    mesh.configuration.take(make_update([reviews()], [BAD]), 2.0)
    assert mesh.configuration.update is not None
    assert mesh.configuration.update.sources == (GOOD,)


def test_a_snapshot_that_cant_be_compiled_is_trouble_until_one_can() -> None:
    faults: list[Exception] = [RuntimeError("no")]
    snapshots: list[Snapshot] = []

    def publish(snapshot: Snapshot) -> None:
        if faults:
            raise faults.pop()
        snapshots.append(snapshot)

    configuration = Configuration(publish)
    configuration.take(make_update([reviews(8001)], [GOOD]), 1.0)
    assert configuration.invalid is not None
    healed = make_update([reviews(8002)], [GOOD])
    configuration.take(healed, 2.0)
    assert configuration.invalid is None
    assert [snapshot.version for snapshot in snapshots] == [healed.version]


def test_documents_stay_invalid_when_a_snapshot_can_be_compiled_again() -> None:
    faults: list[Exception] = []

    def publish(_: Snapshot) -> None:
        if faults:
            raise faults.pop()

    configuration = Configuration(publish)
    configuration.take(make_update([reviews(8001)], [BAD]), 1.0)
    faults.append(RuntimeError("no"))
    configuration.take(make_update([reviews(8002)], [BAD]), 2.0)
    configuration.take(make_update([reviews(8003)], [BAD]), 3.0)
    assert configuration.invalid is not None
    assert configuration.invalid.since == 1.0


def test_a_users_document_is_in_force_before_one_that_was_made_and_the_notes_say_so(mesh: Published) -> None:
    text = GOOD.text.replace(b"{name: a}", b"{name: made, labels: {meshlib.io/from: consul-discovery-chain}}")
    made = Source("consul discovery-chain reviews", text)
    mesh.configuration.take(make_update([reviews()], [made]), 1.0)
    assert [resource.metadata.name for resource in mesh.last.resources] == ["made"]
    mesh.configuration.take(make_update([reviews()], [GOOD, made]), 2.0)
    assert [resource.metadata.name for resource in mesh.last.resources] == ["a"]
    assert "shadowed" in mesh.configuration.notes[0].reason


CANARY = Source(
    "mesh.yaml",
    b"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: canary}\n"
    b"spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v2}}]}]}\n",
)
RESOLVER = Source(
    "a resolver",
    b"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: made}\n"
    b"spec: {host: reviews, subsets: [{name: v2, labels: {version: v2}}]}\n",
)
REVIEWS = frozenset({"reviews.default.svc.cluster.local"})


def test_a_subset_of_a_host_that_was_not_asked_for_holds_up_no_document(mesh: Published) -> None:
    mesh.configuration.take(make_update([], [GOOD, CANARY], asked=frozenset()), 1.0)
    assert mesh.configuration.invalid is None
    assert [resource.metadata.name for resource in mesh.last.resources] == ["a", "canary"]


def test_a_subset_is_judged_once_its_host_was_asked_for(mesh: Published) -> None:
    mesh.configuration.take(make_update([], [CANARY], asked=frozenset()), 1.0)
    mesh.configuration.take(make_update([reviews()], [CANARY], asked=REVIEWS), 2.0)
    assert mesh.configuration.invalid is not None
    assert "a subset nobody defined" in str(mesh.configuration.invalid.error)
    mesh.configuration.take(make_update([reviews()], [CANARY, RESOLVER], asked=REVIEWS), 3.0)
    assert mesh.configuration.invalid is None


def test_a_registry_that_tells_everything_defers_no_judgement(mesh: Published) -> None:
    mesh.configuration.take(make_update([], [CANARY], asked=frozenset()), 1.0)
    mesh.configuration.take(make_update([], [CANARY]), 2.0)
    assert mesh.configuration.invalid is not None
