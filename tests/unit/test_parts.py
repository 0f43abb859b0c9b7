"""Sources of apt are read, and Debian's own archive is asked for a suite; a missing part skips, or fails in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import parts
from tests.support.parts import helper

OTHERS = """
deb [arch=amd64 signed-by=/usr/share/keyrings/other.gpg] https://packages.example/apt other-bookworm main
deb https://database.example/apt bookworm-own main
deb cdrom:[Debian GNU/Linux 12 _Bookworm_ - Official amd64]/ bookworm main
deb https://docker.example/linux/debian bookworm stable
deb https://security.example/debian-security bookworm-security main
"""


def apt(folder: Path, **files: str) -> Path:
    (folder / "sources.list.d").mkdir()
    for name, text in files.items():
        file = "sources.list" if name == "main" else f"sources.list.d/{name.replace('_', '.')}"
        (folder / file).write_text(text)
    return folder


def derived(folder: Path, suites: frozenset[str] = frozenset({"bookworm", "stable"})) -> list[dict[str, str]]:
    return helper.derived(helper.machine_sources(folder), suites, "bullseye")


def test_a_one_line_source_keeps_its_uri_and_options(tmp_path: Path) -> None:
    line = "deb [ arch=amd64,arm64 trusted=yes ]  http://mirror.example/debian/ bookworm main contrib # ours\n"
    assert derived(apt(tmp_path, main=line)) == [
        {
            "Types": "deb",
            "URIs": "http://mirror.example/debian/",
            "Suites": "bullseye",
            "Components": "main",
            "Architectures": "amd64 arm64",
            "Trusted": "yes",
        }
    ]


def test_a_stanza_keeps_its_uris_and_fields_on_many_lines(tmp_path: Path) -> None:
    text = """\
# Debian
Types: deb deb-src
uris: http://one.example/debian
  http://two.example/debian
Suites: bookworm bookworm-updates
Components: main non-free-firmware
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abcd
# in between
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: https://other.example/
Suites: nodistro
Components: main
"""
    [source] = derived(apt(tmp_path, debian_sources=text))
    assert source["URIs"].split() == ["http://one.example/debian", "http://two.example/debian"]
    assert (source["Types"], source["Suites"], source["Components"]) == ("deb", "bullseye", "main")
    key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n -----END PGP PUBLIC KEY BLOCK-----"
    assert helper.stanza({"Signed-By": source["Signed-By"]}) == f"Signed-By: {key}\n"


def test_no_archive_but_debians_own_is_asked(tmp_path: Path) -> None:
    assert derived(apt(tmp_path, main=OTHERS, more_list="deb http://ours.example/debian stable main")) == [
        {"Types": "deb", "URIs": "http://ours.example/debian", "Suites": "bullseye", "Components": "main"}
    ]


@pytest.mark.parametrize(
    "text",
    [
        "deb-src http://ours.example/debian bookworm main",
        "# deb http://ours.example/debian bookworm main",
        "deb http://ours.example/debian bookworm contrib",
        "deb http://ours.example/debian ./",
        "",
    ],
)
def test_what_is_no_source_of_binary_packages_of_main_is_left_out(tmp_path: Path, text: str) -> None:
    assert derived(apt(tmp_path, main=text)) == []


def test_a_disabled_stanza_is_left_out(tmp_path: Path) -> None:
    text = "Types: deb\nURIs: http://ours.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n"
    assert derived(apt(tmp_path, debian_sources=text)) == []


def test_a_machine_without_apt_has_no_sources(tmp_path: Path) -> None:
    assert helper.machine_sources(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ('ID=debian\nVERSION_CODENAME=bookworm\nNAME="Debian GNU/Linux"\n', {"bookworm"}),
        ('ID="debian"\nVERSION_CODENAME="bookworm"\n', {"bookworm"}),
        ("ID=debian\n", set()),  # unstable has no codename of its own
        ("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n", set()),
        ("", set()),
    ],
)
def test_the_machines_own_codename_counts_only_on_debian(tmp_path: Path, text: str, own: set[str]) -> None:
    file = tmp_path / "os-release"
    file.write_text(text)
    assert helper.debian_suites(file) == own | {"oldstable", "stable", "testing", "unstable", "sid"}


def test_the_suites_own_keys_are_taken_or_else_all_of_debians(tmp_path: Path) -> None:
    assert helper.keys(tmp_path, "bullseye") == b""
    for name, key in {"keyring.gpg": b"K", "keyring.pgp": b"K", "removed-keys.pgp": b"R"}.items():
        (tmp_path / f"debian-archive-{name}").write_bytes(key)
    assert helper.keys(tmp_path, "bullseye") == b"KR"
    (tmp_path / "debian-archive-bullseye-stable.gpg").write_bytes(b"S")
    (tmp_path / "debian-archive-bullseye-automatic.gpg").write_bytes(b"A")
    (tmp_path / "debian-archive-trixie-stable.gpg").write_bytes(b"T")
    assert helper.keys(tmp_path, "bullseye") == b"AS"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> dict[str, parts.Answer]:
    """What the helper says, to be set by the test."""
    said = {"consul": parts.Answer(0, "/opt/consul", "")}
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(parts, "_asked", lambda name: said[name])
    return said


def test_a_part_that_is_here_is_a_path(answer: dict[str, parts.Answer]) -> None:
    assert parts.part("consul") == Path("/opt/consul")


def test_a_missing_part_skips_the_test_with_the_reason(answer: dict[str, parts.Answer]) -> None:
    answer["consul"] = parts.Answer(3, "", "this machine has no apt-get")
    with pytest.raises(pytest.skip.Exception, match="no apt-get"):
        parts.part("consul")


@pytest.mark.parametrize(("status", "variable"), [(3, "true"), (1, "")])
def test_a_missing_part_in_ci_and_a_wrong_setting_anywhere_fail_the_test(
    answer: dict[str, parts.Answer], monkeypatch: pytest.MonkeyPatch, status: int, variable: str
) -> None:
    monkeypatch.setenv("CI", variable)
    answer["consul"] = parts.Answer(status, "", "the reason")
    with pytest.raises(pytest.fail.Exception, match="the reason"):
        parts.part("consul")
