"""What documents say of each other."""

from __future__ import annotations

import pytest

from meshlib.resources import Loaded, Source, check_references, load


def rule(host: str, *subsets: str, name: str = "rule", namespace: str = "default") -> str:
    listed = ", ".join(f"{{name: {subset}}}" for subset in subsets)
    return (
        f"apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{host: '{host}', subsets: [{listed}]}}\n---\n"
    )


def route(host: str, subset: str, namespace: str = "default") -> str:
    return (
        f"apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        f"metadata: {{name: route, namespace: {namespace}}}\nspec:\n  hosts: [{host}]\n"
        f"  http: [{{route: [{{destination: {{host: {host}, subset: {subset}}}}}]}}]\n---\n"
    )


def loaded(text: str) -> Loaded:
    return load([Source("mesh.yaml", text.encode())])


@pytest.mark.parametrize(
    "text",
    [
        route("reviews", "v2"),
        rule("reviews", "v1") + route("reviews", "v2"),
        rule("reviews", "v2", namespace="other") + route("reviews", "v2"),
    ],
)
def test_a_subset_nobody_defined_is_a_problem_where_it_is_named(text: str) -> None:
    [problem] = loaded(text).problems
    assert problem.path == "spec.http[0].route[0].destination.subset"
    assert "a subset nobody defined" in problem.message
    assert problem.origin.line == text[: text.index("http:")].count("\n") + 1


@pytest.mark.parametrize(
    "text",
    [
        rule("reviews", "v1") + route("reviews", "v1"),
        rule("reviews.default.svc.cluster.local", "v1") + route("reviews", "v1"),
        rule("reviews.default", "v1") + route("reviews", "v1"),
        rule("reviews", "v1") + route("reviews.default", "v1", namespace="other"),
        rule("*.example.com", "v1") + route("api.example.com", "v1"),
    ],
)
def test_a_subset_is_found_by_every_name_of_its_host(text: str) -> None:
    assert loaded(text).problems == ()


def test_a_faulty_rule_still_defines_its_subsets() -> None:
    problems = loaded(rule("reviews", "v1", "v1") + route("reviews", "v1")).problems
    assert [problem.kind for problem in problems] == ["DestinationRule"]


def test_the_subset_of_an_outbound_policy_must_be_defined_too() -> None:
    [problem] = loaded(
        "apiVersion: meshlib/v1\nkind: OutboundPolicy\nmetadata: {name: a}\nspec: {host: a, subset: v9}"
    ).problems
    assert problem.path == "spec.subset"


def test_two_documents_of_one_kind_and_name_are_a_problem() -> None:
    [problem] = loaded(rule("a") + rule("b")).problems
    assert "stand at mesh.yaml, document 1, line 1 too" in problem.message


def test_two_rules_for_one_host_are_a_warning() -> None:
    found = loaded(rule("a", name="one") + rule("a", name="two"))
    assert found.problems == ()
    assert len(found.resources) == 2
    errors, warnings = check_references(found.resources)
    assert errors == []
    assert "default/one is for a.default.svc.cluster.local too" in warnings[0].message
