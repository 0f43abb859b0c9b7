"""Hostile and broken texts: one message each, quickly, and in little memory."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import pytest

from meshlib.resources import Source, encode, load

GOOD = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: a}\n"
JSON = (
    '{"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",'
    ' "metadata": {"name": "a"}, "spec": {"host": "a"}}'
)
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)


def problems(text: bytes | str) -> list[str]:
    text = text.encode() if isinstance(text, str) else text
    return [str(problem) for problem in load([Source("mesh.yaml", text)]).problems]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a" * 50_000_000, "mesh.yaml: has 50000000 bytes; at most 4194304 are read"),
        (BOMB, "has more than 500000 values once its aliases are expanded"),
        ("a: &a {b: [*a]}", "cyclic reference: the alias *a stands inside its own anchor"),
        ("a: *b", "the alias *b has no anchor &b before it"),
        ("[" * 100_000, "is nested deeper than 64 levels"),
        ("- " * 100_000, "is nested deeper than 64 levels"),
        ("[" * 100_000 + "]" * 100_000, "is nested deeper than 64 levels"),
        ("[" * 65 + "]" * 65, "is nested deeper than 64 levels"),
        ("a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 40 + "*a" + "]" * 40, "nested deeper than 64 levels once"),
        (b"a: b\nc: \xff", "is not UTF-8 at line 2 (byte 8)"),
        ("a: 1\na: 2", "line 2: the key 'a' stands twice in one mapping"),
        ("a:\n\t- b", "line 2: is not YAML"),
        ("a: [b", "is not YAML"),
        ("a: \x01", "is not YAML"),
        ("? [a]\n: b", "has a mapping or a list as a key"),
        ("a: !!python/object:os.system x", "is not supported; leave it out"),
        ("a: !custom {}", "is not supported; leave it out"),
        ("a: .inf", "is not a finite number"),
        ("a: 99999999999999999999", "does not fit 64 bits"),
        ('{"a": 99999999999999999999}', "does not fit 64 bits"),
        ("a: {<<: 1}", "the merge key << takes a mapping"),
        ("a: !!int x", "is not what its tag"),
        ("---\n" * 10 + "- []\n" * 10_001, "has more than 10000 documents"),
    ],
)  # fmt: skip
def test_a_text_that_cannot_be_read_is_one_problem(text: bytes | str, words: str) -> None:
    last = problems(text)[-1]
    assert words in last


def test_a_bomb_costs_no_memory() -> None:
    load([])
    problems("a: b")
    tracemalloc.start()
    try:
        problems(BOMB)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_documents_before_the_fault_are_kept_and_their_number_is_told() -> None:
    found = load([Source("mesh.yaml", (GOOD + "---\na: [").encode())])
    assert len(found.resources) == 1
    assert "mesh.yaml, document 2, line" in str(found.problems[0])


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "\ufeff" + GOOD,
        "---\n---\n" + GOOD + "...\n---\n",
        JSON,
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a}, spec: {host: a}}",
        "x-base: &base {name: a, namespace: b}\n" + GOOD.replace("{name: a}", "{<<: *base, namespace: default}"),
    ],
)
def test_yaml_and_json_say_the_same(text: str) -> None:
    [resource] = load([Source("mesh.yaml", text.encode())]).resources
    assert str(resource.key) == "DestinationRule/default/a"


def test_the_items_of_a_list_are_documents_of_their_own() -> None:
    item = '{"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "a"}, "spec": {}}'
    text = '{"kind": "List", "apiVersion": "v1", "items": [\n' + item + ",\n" + item.replace('"a"', '"b"') + "\n]}"
    assert [text.partition(":")[0] for text in problems(text)] == [
        "mesh.yaml, document 1 (DestinationRule default/a), line 2, spec.host",
        "mesh.yaml, document 2 (DestinationRule default/b), line 3, spec.host",
    ]


def test_equal_documents_give_equal_bytes() -> None:
    one = load([Source("a", GOOD.encode())]).resources[0]
    other = load([Source("b", b'{"spec":{"host":"a"},"kind":"DestinationRule","metadata":{"name":"a"},'
                              b'"apiVersion":"networking.istio.io/v1"}')]).resources[0]  # fmt: skip
    assert encode(one) == encode(other)
    assert load([Source("c", encode(one))]).resources[0].document == one.document


def test_yaml_is_imported_when_it_is_read() -> None:
    code = "import sys, meshlib.resources; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
