"""The capability report: every field that isn't applied as written is named, with the reason."""

from __future__ import annotations

import pytest

from meshlib.resources import FieldNote, Source, load

RULE = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, uid: x}\nstatus: {}\nspec: "
ROUTE = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: "


def notes(text: str) -> tuple[FieldNote, ...]:
    found = load([Source("mesh.yaml", text.encode())])
    assert found.problems == ()
    return found.notes


@pytest.mark.parametrize(
    ("text", "path", "status", "reason"),
    [
        (RULE + "{host: a, exportTo: ['*']}", "spec.exportTo", "ignored", "does not apply in a library"),
        (RULE + "{host: a, trafficPolicy: {tls: {mode: SIMPLE, credentialName: b}}}",
         "spec.trafficPolicy.tls.credentialName", "ignored", "not supported yet"),
        (RULE + "{host: a, subset: []}", "spec.subset", "ignored", 'unknown field; did you mean "subsets"?'),
        (RULE + "{host: a}\nspecs: 1", "specs", "ignored", 'unknown field; did you mean "spec"?'),
        (RULE + "{host: a, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}",
         "spec.trafficPolicy.loadBalancer.simple", "approximated", "no original destination"),
        (RULE + "{host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}}",
         "spec.trafficPolicy.connectionPool.tcp.maxConnections", "approximated", "concurrent requests"),
        (RULE + "{host: a, trafficPolicy: {outlierDetection: {consecutive5XxErrors: 1}}}",
         "spec.trafficPolicy.outlierDetection.consecutive5XxErrors", "ignored", '"consecutive5xxErrors"'),
        (ROUTE + "{hosts: [a], http: [{match: [{uri: {exact: /}, sourceLabels: {a: b}}], redirect: {uri: /x}}]}",
         "spec.http[0].match[0].sourceLabels", "ignored", "matches more than it says"),
        (ROUTE + "{hosts: [a], http: [{mirror: {host: b}, redirect: {uri: /x}}]}",
         "spec.http[0].mirror", "ignored", "not supported yet"),
        (ROUTE + "{hosts: [a], http: [{fault: {abort: {httpStatus: 500}}, route: [{destination: {host: b}}]}]}",
         "spec.http[0].fault.abort", "ignored", "without a percentage no request is aborted"),
        (ROUTE + "{hosts: [a], tcp: [{route: []}]}", "spec.tcp", "ignored", "only HTTP"),
    ],
)  # fmt: skip
def test_a_field_that_is_not_applied_is_noted_by_path(text: str, path: str, status: str, reason: str) -> None:
    [note] = notes(text)
    assert (note.path, note.status) == (path, status)
    assert reason in note.reason


def test_what_kubernetes_adds_to_metadata_is_not_noted() -> None:
    assert notes(RULE + "{host: a}") == ()


def test_strict_mode_refuses_what_would_be_noted() -> None:
    found = load([Source("mesh.yaml", (RULE + "{host: a, exportTo: ['*']}").encode())], strict=True)
    assert found.notes == ()
    assert found.resources == ()
    assert "strict mode refuses" in found.problems[0].message


def test_the_number_of_notes_of_a_source_is_bounded() -> None:
    text = RULE + "{host: a, subsets: [" + "".join(f"{{name: s{i}, nme: x}}, " for i in range(5000)) + "]}"
    assert len(notes(text)) == 1000
