"""`meshlib apply` and `meshlib delete`: all or nothing, and said per document."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cli.conftest import RULE, SERVICE

MIRROR = SERVICE.replace("  - route:", "  - mirror: {host: shadow}\n    route:")


def test_apply_says_what_became_of_each_document(meshlib: Any, mesh_yaml: Any) -> None:
    ran = meshlib("apply", "-f", mesh_yaml)
    assert ran == (0, "destinationrule/reviews created\nvirtualservice/reviews created\n", "")


def test_applying_again_changes_nothing(meshlib: Any, mesh_yaml: Any) -> None:
    meshlib("apply", "-f", mesh_yaml)
    before = meshlib("status").out
    assert meshlib("apply", "-f", mesh_yaml).out == (
        "destinationrule/reviews unchanged\nvirtualservice/reviews unchanged\n"
    )
    assert meshlib("status").out == before


def test_a_changed_document_is_configured(meshlib: Any, mesh_yaml: Any, write: Any) -> None:
    meshlib("apply", "-f", mesh_yaml)
    changed = write("changed.yaml", SERVICE.replace("route:", "timeout: 2s\n    route:"))
    assert meshlib("apply", "-f", changed).out == "virtualservice/reviews configured\n"


def test_one_problem_keeps_every_document_out(meshlib: Any, write: Any) -> None:
    bad = write("bad.yaml", f"{RULE}---\n{SERVICE.replace('[reviews]', 'reviews')}")
    ran = meshlib("apply", "-f", bad)
    assert (ran.status, ran.out) == (1, "")
    assert "nothing was applied" in ran.err
    assert f"{bad}, document 2 (VirtualService default/reviews), line 13, spec.hosts" in ran.err
    assert meshlib("get").out == ""


def test_a_document_may_need_one_that_is_in_the_registry(meshlib: Any, write: Any) -> None:
    assert meshlib("apply", "-f", write("service.yaml", SERVICE)).status == 1
    assert meshlib("apply", "-f", write("rule.yaml", RULE)).status == 0
    assert meshlib("apply", "-f", write("service.yaml", SERVICE)).status == 0


def test_a_change_that_breaks_a_document_of_the_registry_is_refused(meshlib: Any, mesh_yaml: Any, write: Any) -> None:
    meshlib("apply", "-f", mesh_yaml)
    ran = meshlib("apply", "-f", write("rule.yaml", RULE.replace("v1", "v2")))
    assert ran.status == 1
    assert '"v1" of reviews.default.svc.cluster.local is a subset nobody defined' in ran.err


def test_what_was_made_of_the_registrys_own_configuration_is_not_taken_for_a_document(meshlib: Any, write: Any) -> None:
    label = "labels: {meshlib.io/from: consul-discovery-chain}"
    made = RULE.replace("{name: reviews}", "{name: consul.reviews, " + label + "}")
    ran = meshlib("apply", "-f", write("made.yaml", made))
    assert (ran.status, ran.out) == (1, "")
    assert "metadata.labels: was made of the registry's own configuration" in ran.err
    assert meshlib("get").out == ""


def test_what_was_made_may_stand_unchanged_beside_what_is_applied(meshlib: Any, write: Any) -> None:
    label = "labels: {meshlib.io/from: consul-discovery-chain}"
    made = write("made.yaml", RULE.replace("{name: reviews}", "{name: consul.reviews, " + label + "}"))
    ran = meshlib("--registry", f"file://{made}", "apply", "--dry-run", "-f", made)
    assert ran == (0, "destinationrule/consul.reviews unchanged (dry run)\n", "")


def test_a_field_that_is_not_applied_is_a_warning_with_its_path(meshlib: Any, write: Any) -> None:
    ran = meshlib("apply", "-f", write("mesh.yaml", f"{RULE}---\n{MIRROR}"))
    assert ran.status == 0
    assert "spec.http[0].mirror: ignored" in ran.err


def test_strict_refuses_what_would_be_ignored(meshlib: Any, write: Any) -> None:
    ran = meshlib("apply", "--strict", "-f", write("mesh.yaml", f"{RULE}---\n{MIRROR}"))
    assert ran.status == 1
    assert "spec.http[0].mirror" in ran.err
    assert meshlib("get").out == ""


def test_strict_judges_the_new_documents_only(meshlib: Any, write: Any) -> None:
    meshlib("apply", "-f", write("mesh.yaml", f"{RULE}---\n{MIRROR}"))
    other = write("other.yaml", RULE.replace("reviews", "ratings"))
    assert meshlib("apply", "--strict", "-f", other).status == 0


def test_a_dry_run_writes_nothing(meshlib: Any, mesh_yaml: Any) -> None:
    assert "virtualservice/reviews created (dry run)" in meshlib("apply", "--dry-run", "-f", mesh_yaml).out
    assert meshlib("get").out == ""


def test_a_directory_stands_for_its_documents(meshlib: Any, write: Any) -> None:
    directory = write("mesh/a.yaml", RULE).parent
    write("mesh/b.yml", SERVICE)
    write("mesh/readme.txt", "not a document")
    assert len(meshlib("apply", "-f", directory).out.splitlines()) == 2


def test_the_namespace_is_given_to_documents_that_name_none(meshlib: Any, mesh_yaml: Any) -> None:
    meshlib("apply", "-n", "shop", "-f", mesh_yaml)
    assert meshlib("get", "-o", "name").out == ""
    assert "namespace: shop" in meshlib("get", "-n", "shop", "vs", "reviews", "-o", "yaml").out


def test_problems_keep_their_document_when_a_namespace_is_given(meshlib: Any, write: Any) -> None:
    bad = write("bad.yaml", f"{RULE}---\n{SERVICE.replace('[reviews]', 'reviews')}")
    ran = meshlib("apply", "-n", "shop", "-f", bad)
    assert f"{bad}, document 2 (VirtualService shop/reviews), line 8, spec.hosts" in ran.err


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n---\n"])
def test_no_document_at_all_is_a_failure(meshlib: Any, write: Any, text: str) -> None:
    ran = meshlib("apply", "-f", write("empty.yaml", text))
    assert ran.status == 1
    assert "there is no document" in ran.err


def test_a_file_that_is_not_there_is_named(meshlib: Any, tmp_path: Any) -> None:
    ran = meshlib("apply", "-f", tmp_path / "no.yaml")
    assert (ran.status, ran.err) == (1, f"meshlib: {tmp_path / 'no.yaml'}: No such file or directory\n")


def test_delete_by_name(meshlib: Any, mesh_yaml: Any) -> None:
    meshlib("apply", "-f", mesh_yaml)
    assert meshlib("delete", "vs", "reviews").out == "virtualservice/reviews deleted\n"
    assert meshlib("get", "-o", "name").out == "destinationrule/reviews\n"


def test_delete_by_file(meshlib: Any, mesh_yaml: Any) -> None:
    meshlib("apply", "-f", mesh_yaml)
    assert meshlib("delete", "-f", mesh_yaml).status == 0
    assert meshlib("get").out == ""


def test_what_others_need_is_not_deleted(meshlib: Any, mesh_yaml: Any) -> None:
    meshlib("apply", "-f", mesh_yaml)
    ran = meshlib("delete", "dr", "reviews")
    assert ran.status == 1
    assert "others need it" in ran.err
    assert "destinationrule/reviews" in meshlib("get", "-o", "name").out


def test_deleting_what_is_not_there_fails_and_says_so(meshlib: Any) -> None:
    ran = meshlib("delete", "vs", "nobody")
    assert ran.status == 1
    assert "virtualservice/nobody was not found" in ran.err


@pytest.mark.parametrize(
    "arguments", [["apply"], ["delete"], ["delete", "vs"], ["delete", "pods", "x"], ["delete", "ep", "reviews"]]
)
def test_arguments_that_make_no_sense_are_wrong_usage(meshlib: Any, arguments: list[str]) -> None:
    ran = meshlib(*arguments)
    assert ran.status == 2
    assert ran.err.startswith("meshlib: ")
