"""Whatever the input, `load` answers, and what it takes it gives back."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshlib.resources import Loaded, Source, encode, load

VALID: list[dict[str, Any]] = [
    {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "a"},
        "spec": {
            "hosts": ["a"],
            "http": [
                {
                    "match": [{"uri": {"prefix": "/x"}, "headers": {"h": {"regex": "a+"}}}],
                    "route": [
                        {"destination": {"host": "a", "port": {"number": 80}}, "weight": 1},
                        {"destination": {"host": "b"}, "weight": 2},
                    ],
                    "retries": {"attempts": 2, "perTryTimeout": "1s", "retryOn": "5xx"},
                    "fault": {"abort": {"httpStatus": 500, "percentage": {"value": 1}}},
                }
            ],
        },
    },
    {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "a"},
        "spec": {
            "host": "a",
            "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}, "outlierDetection": {"interval": "1s"}},
            "subsets": [{"name": "v1", "labels": {"version": "v1"}}],
        },
    },
    {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "a"},
        "spec": {
            "hosts": ["a.com"],
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "resolution": "STATIC",
            "endpoints": [{"address": "10.0.0.1", "ports": {"http": 8080}}],
        },
    },
    {
        "apiVersion": "meshlib/v1",
        "kind": "OutboundPolicy",
        "metadata": {"name": "a"},
        "spec": {"host": "a", "circuitBreaker": {"openFor": "5s"}, "hedging": {"percentile": 95}},
    },
    {
        "apiVersion": "meshlib/v1",
        "kind": "InboundPolicy",
        "metadata": {"name": "a"},
        "spec": {
            "rateLimits": [{"name": "a", "requests": 1, "by": [{"claim": "a"}], "match": [{"uri": {"prefix": "/"}}]}],
            "concurrency": {"maxRequests": 5, "adaptive": {"minLimit": 1}},
            "faults": [{"fault": {"abort": {"httpStatus": 500, "percentage": {"value": 1}}}}],
            "extensionProviders": [{"name": "a", "envoyExtAuthzHttp": {"service": "a", "port": 80}}],
            "trustDomainAliases": ["a"],
        },
    },
    {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "a"},
        "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "jwtRules": [
                {
                    "issuer": "https://a",
                    "jwksUri": "https://a/",
                    "fromHeaders": [{"name": "a", "prefix": "b"}],
                    "outputClaimToHeaders": [{"header": "a", "claim": "b"}],
                },
                {"issuer": "b", "jwks": '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "%s"}]}' % ("A" * 43)},
            ],
        },
    },
    {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "a", "annotations": {"istio.io/dry-run": "true"}},
        "spec": {
            "action": "DENY",
            "rules": [
                {
                    "from": [{"source": {"principals": ["a*"], "ipBlocks": ["10.0.0.0/8"]}}],
                    "to": [{"operation": {"paths": ["/a/{*}"], "methods": ["GET"], "ports": ["80"]}}],
                    "when": [{"key": "request.headers[a]", "values": ["b"]}],
                }
            ],
        },
    },
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [deeper for key, child in inner for deeper in paths(child, (*path, key))]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    document = json.loads(json.dumps(draw(st.sampled_from(VALID))))
    for _ in range(draw(st.integers(0, 3))):
        candidates = [path for path in paths(document) if path]
        if not candidates:
            break
        *around, last = draw(st.sampled_from(candidates))
        holder = document
        for step in around:
            holder = holder[step]
        if draw(st.booleans()):
            holder[last] = draw(VALUES)
        else:
            del holder[last]
    return document


def given_back(found: Loaded) -> None:
    for resource in found.resources:
        again = load([Source("again", encode(resource))])
        assert again.problems == ()
        assert again.resources[0].spec == resource.spec
        assert again.resources[0].metadata == resource.metadata
    for line in (*found.problems, *found.notes):
        assert str(line)


def test_the_examples_are_valid() -> None:
    assert load([Source("x", json.dumps(document).encode()) for document in VALID]).problems == ()


@given(mutated(), st.booleans())
def test_a_mutated_document_is_taken_or_explained(document: dict[str, Any], strict: bool) -> None:
    found = load([Source("x", json.dumps(document).encode(errors="surrogatepass"))], strict=strict)
    assert found.resources or found.problems
    given_back(found)


@given(mutated())
def test_yaml_and_json_are_judged_alike(document: dict[str, Any]) -> None:
    as_json = load([Source("x", json.dumps(document, allow_nan=False).encode())]) if finite(document) else None
    as_yaml = load([Source("x", yaml.safe_dump(document, allow_unicode=True).encode())])
    given_back(as_yaml)
    if as_json is not None and as_json.resources:
        assert [resource.spec for resource in as_yaml.resources] == [resource.spec for resource in as_json.resources]


def finite(document: Any) -> bool:
    try:
        json.dumps(document, allow_nan=False)
    except ValueError:
        return False
    return True


@given(st.binary(max_size=200) | st.text("a:&*[]{}-<!|>\"'#\n \t,?%@`1.", max_size=80).map(str.encode))
def test_any_text_is_answered(text: bytes) -> None:
    given_back(load([Source("x", text)]))
