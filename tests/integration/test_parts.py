"""The helper finds a part or fetches it once, whole or not at all. But in the last test, apt's programs are made up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.parts import SCRIPTS, UNAVAILABLE, helper

PROGRAM = "usr/bin/consul"
RUNS = "#!/bin/sh\nexit 0\n"
SOURCE = "deb http://mirror.example/debian bookworm main\n"


class Machine:
    """A machine of Debian's, with an archive in which apt finds `program` (None: nothing)."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.parts = folder / "the parts"
        self.fetches = folder / "fetches"
        self._program = folder / "program"
        self.program: str | None = RUNS
        self.bin.mkdir()
        (folder / "apt").mkdir()
        (folder / "apt" / "sources.list").write_text(SOURCE)
        self.tool("dpkg", "echo amd64")
        self.tool(
            "apt-get", f'[ "$4" = update ] || {{ echo . >>"{self.fetches}"; cp "{self._program}" consul_1.deb; }}'
        )
        self.tool("dpkg-deb", 'mkdir -p "$3/usr/bin"; cp "$2" "$3/usr/bin/consul"; chmod +x "$3/usr/bin/consul"')

    @property
    def program(self) -> str | None:
        return self._program.read_text() if self._program.exists() else None

    @program.setter
    def program(self, text: str | None) -> None:
        self._program.unlink(missing_ok=True)
        if text is not None:
            self._program.write_text(text)

    def tool(self, name: str, line: str) -> None:
        file = self.bin / name
        file.write_text(f"#!/bin/sh\n{line}\n")
        file.chmod(0o755)

    def fetched(self) -> int:
        """How often apt was asked for the package."""
        return self.fetches.read_text().count(".") if self.fetches.exists() else 0


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(helper, "APT", tmp_path / "apt")
    (tmp_path / "os-release").write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
    monkeypatch.setattr(helper, "OS_RELEASE", tmp_path / "os-release")
    monkeypatch.setenv("MESHLIB_PARTS", str(made.parts))
    monkeypatch.delenv("CONSUL_BIN", raising=False)
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{_without_consul(os.environ['PATH'])}")
    return made


def _without_consul(path: str) -> str:
    return os.pathsep.join(entry for entry in path.split(os.pathsep) if not (Path(entry) / "consul").exists())


def ask(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["_part.py", *arguments])
    status: int = helper.main()
    return status


def test_what_the_variable_names_is_taken(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.tool("my-consul", "exit 0")
    monkeypatch.setenv("CONSUL_BIN", str(machine.bin / "my-consul"))
    assert ask(monkeypatch, "consul") == 0
    assert capsys.readouterr().out == f"{machine.bin / 'my-consul'}\n"


def test_a_variable_that_names_no_program_is_an_error_and_no_missing_part(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONSUL_BIN", str(machine.bin))
    assert ask(monkeypatch, "consul") == 1
    assert f"CONSUL_BIN={machine.bin} is no program" in capsys.readouterr().err


def test_a_program_on_the_path_is_taken(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.tool("consul", "exit 0")
    assert ask(monkeypatch, "consul") == 0
    assert (capsys.readouterr().out, machine.fetched()) == (f"{machine.bin / 'consul'}\n", 0)


def test_what_is_missing_is_fetched_once_and_found_quietly_from_then_on(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = f"{machine.parts}/consul-bullseye/{PROGRAM}\n"
    assert ask(monkeypatch, "consul") == 0
    assert capsys.readouterr().out == path
    for arguments in (["consul"], ["--here", "consul"]):
        assert ask(monkeypatch, *arguments) == 0
        assert capsys.readouterr() == (path, "")
    assert machine.fetched() == 1


def test_a_part_of_several_packages_finds_the_libraries_unpacked_with_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.program = '#!/bin/sh\necho "$LD_LIBRARY_PATH" "$@"\n'
    machine.tool("apt-get", 'for one in "$@"; do case "$one" in one | two) touch "$one.deb" ;; esac; done')
    unpacked = f'cp "{machine.bin.parent}/program" "$3/usr/bin/real"; chmod +x "$3/usr/bin/real"'
    tool = f'mkdir -p "$3/usr/bin" "$3/usr/lib/libraries"; {unpacked}; ln -sf real "$3/usr/bin/linked"'
    machine.tool("dpkg-deb", tool)
    part = helper.Part("ONE_BIN", "one", ("one", "two"), "bookworm", "usr/bin/linked", ("--version",))
    monkeypatch.setitem(helper.PARTS, "one", part)
    assert ask(monkeypatch, "one") == 0
    program = capsys.readouterr().out.removesuffix("\n")
    said = subprocess.run(
        [program, "--port", "1"], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"}
    )
    libraries, _, arguments = said.stdout.partition(" --")
    assert Path(libraries).resolve() == machine.parts / "one-bookworm/usr/lib/libraries"
    assert arguments == "port 1\n"


def test_a_part_that_lacks_one_of_its_packages_is_not_kept(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part = helper.Part("ONE_BIN", "one", ("one", "two"), "bookworm", PROGRAM, ("--version",))
    monkeypatch.setitem(helper.PARTS, "one", part)
    assert ask(monkeypatch, "one") == UNAVAILABLE
    assert "apt could not download one, two of bookworm" in capsys.readouterr().err
    assert not (machine.parts / "one-bookworm").exists()


def test_two_at_once_fetch_once(machine: Machine) -> None:
    part = helper.PARTS["consul"]
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: helper.kept("consul", part, fetching=True), range(4)))
    assert found == {machine.parts / "consul-bullseye" / PROGRAM}
    assert machine.fetched() == 1


def test_here_fetches_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(monkeypatch, "--here", "consul") == UNAVAILABLE
    assert "scripts/_part consul tries to fetch it" in capsys.readouterr().err
    assert (machine.fetched(), machine.parts.exists()) == (0, False)


def test_why_it_could_not_be_fetched_is_said_then_and_later_until_it_can(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apt = (machine.bin / "apt-get").read_text()
    machine.tool("apt-get", 'echo "E: the archive is away" >&2; exit 100')
    for arguments in (["consul"], ["--here", "consul"]):
        assert ask(monkeypatch, *arguments) == UNAVAILABLE
        out, err = capsys.readouterr()
        assert out == ""
        assert "the archive is away" in err
        assert "CONSUL_BIN=/path/to/consul" in err
    (machine.bin / "apt-get").write_text(apt)
    assert ask(monkeypatch, "consul") == 0
    assert [file.name for file in machine.parts.iterdir() if file.suffix == ".failure"] == []


def test_what_does_not_run_here_is_not_kept(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.program = "#!/bin/sh\necho 'GLIBC_2.99 not found' >&2\nexit 1\n"
    assert ask(monkeypatch, "consul") == UNAVAILABLE
    assert "GLIBC_2.99 not found" in capsys.readouterr().err
    assert not (machine.parts / "consul-bullseye").exists()


def test_what_an_interrupted_fetch_left_is_passed_over(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    left = machine.parts / "consul-bullseye.unfinished"
    left.mkdir(parents=True)
    (left / "half").touch()
    assert ask(monkeypatch, "consul") == 0
    assert not left.exists()
    assert not (machine.parts / "consul-bullseye" / "half").exists()


def test_a_machine_without_apt_is_told_what_to_do(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(machine.parts))
    assert ask(monkeypatch, "consul") == UNAVAILABLE
    assert "no apt-get" in capsys.readouterr().err


def test_a_machine_with_sources_of_others_alone_asks_none_of_them(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "os-release").write_text("ID=ubuntu\nVERSION_CODENAME=bookworm\n")
    assert ask(monkeypatch, "consul") == UNAVAILABLE
    assert "Debian's own archive" in capsys.readouterr().err
    assert machine.fetched() == 0


def test_an_unknown_part_is_refused() -> None:
    ran = subprocess.run([SCRIPTS / "_part", "nothing"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "usage: scripts/_part [--here] consul" in ran.stderr


@pytest.mark.skipif(not shutil.which("apt-get"), reason="this machine has no apt")
def test_apt_understands_the_configuration_and_knows_the_suite_alone(tmp_path: Path) -> None:
    sources = [{"Types": "deb", "URIs": "http://mirror.example/debian", "Suites": "bullseye", "Components": "main"}]
    apt = helper.configured(sources, "bullseye", tmp_path)
    asked = subprocess.run([*apt[:3], "update", "--print-uris"], capture_output=True, text=True, check=True)
    assert asked.stderr == ""
    uris = [line.split("'")[1] for line in asked.stdout.splitlines()]
    suite = "http://mirror.example/debian/dists/bullseye"
    assert f"{suite}/InRelease" in uris
    assert [uri for uri in uris if not re.match(rf"{suite}/(InRelease|main/binary-\w+/Packages)", uri)] == []
    said = subprocess.run(["apt-config", *apt[1:3], "dump"], capture_output=True, text=True, check=True).stdout
    assert f'Dir::State::lists "{tmp_path}/state/lists";' in said.splitlines()
    assert re.findall(r'APT::Update::P.* ".+";', said) == [], "a hook of the system's would run"
