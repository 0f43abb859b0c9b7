"""Find or fetch a program of others that tests need, and print its path. Runs on the standard library alone.

What isn't here is fetched as a package of Debian: apt downloads and verifies it, with a configuration of its own, and
it is unpacked into a folder of the project. Nothing is installed, and nothing of the system is written. The sources are
the machine's own with the suite changed, so a mirror or a proxy that was configured is used.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FOUND, WRONG, USAGE, UNAVAILABLE = 0, 1, 2, 3

APT = Path("/etc/apt")
KEYRINGS = Path("/usr/share/keyrings")
OS_RELEASE = Path("/etc/os-release")

TOOLS = ("apt-get", "dpkg", "dpkg-deb")
TIMEOUT = 900  # seconds one command of apt may take; apt itself gives up on a silent server after 20

# deb822's names for the options of a one-line source that are spelt differently there.
FIELDS = {"arch": "Architectures", "lang": "Languages", "target": "Targets"}

Source = Mapping[str, str]  # one source of apt: deb822 fields, their names capitalised


class Unavailable(Exception):
    """The part can't be had here; the text says why."""


@dataclass(frozen=True)
class Part:
    """A program, and the packages of Debian that have it."""

    variable: str  # names the program, if set
    command: str  # its name on the PATH
    packages: tuple[str, ...]  # the program's, and with libraries of its own theirs
    suite: str  # the release of Debian that has the packages
    program: str  # where they have it
    proof: tuple[str, ...]  # arguments with which it only shows that it runs


PARTS = {
    "consul": Part("CONSUL_BIN", "consul", ("consul",), "bullseye", "usr/bin/consul", ("version",)),
    "redis": Part(
        "REDIS_BIN",
        "redis-server",
        # The program itself is in the tools, under another name. libsystemd0 is wherever apt is.
        ("redis-server", "redis-tools", "libatomic1", "libjemalloc2", "liblzf1", "libssl3"),
        "bookworm",
        "usr/bin/redis-server",
        ("--version",),
    ),
}


def main() -> int:
    arguments = sys.argv[1:]
    fetching = arguments[:1] != ["--here"]
    if len(names := arguments if fetching else arguments[1:]) != 1 or names[0] not in PARTS:
        return fail(USAGE, f"usage: scripts/_part [--here] {' | '.join(PARTS)}")
    name, part = names[0], PARTS[names[0]]
    given = os.environ.get(part.variable)
    if given:
        if not os.access(given, os.X_OK) or not Path(given).is_file():
            return fail(WRONG, f"{part.variable}={given} is no program. Name one, or unset it.")
        print(Path(given).absolute())
        return FOUND
    try:
        print(shutil.which(part.command) or kept(name, part, fetching))
    except Unavailable as reason:
        advice = f"Put {part.command} on the PATH, or say where it is: {part.variable}=/path/to/{part.command}"
        return fail(UNAVAILABLE, f"{name} can't be had here: {reason}\n{advice}")
    return FOUND


def kept(name: str, part: Part, fetching: bool) -> Path:
    """Return the program fetched earlier, or fetched now."""
    folder = Path(os.environ["MESHLIB_PARTS"]).absolute() / f"{name}-{part.suite}"
    program, failure = folder / part.program, folder.with_suffix(".failure")
    if program.exists():
        return program
    if not fetching:
        reason = failure.read_text() if failure.exists() else "it was not fetched"
        raise Unavailable(f"{reason}\n(scripts/_part {name} tries to fetch it.)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another script is fetching {name}: waiting for it …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            try:
                fetch(part, folder)
            except Unavailable as reason:
                failure.write_text(str(reason))
                raise
            failure.unlink(missing_ok=True)
    return program


def fetch(part: Part, folder: Path) -> None:
    """Make `folder` of the part's package: all of it or nothing."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise Unavailable(f"this machine has no {missing[0]}, so no package of Debian can be fetched.")
    sources = derived(machine_sources(APT), debian_suites(OS_RELEASE), part.suite)
    if not sources:
        raise Unavailable(f"no source in {APT} is Debian's own archive, so {part.suite} can't be asked.")
    say(f"Fetching {part.packages[0]} of Debian's {part.suite} into {folder} (once: about a minute) …")
    # Not in the project: apt understands no space in some paths.
    with tempfile.TemporaryDirectory(prefix="meshlib-apt-") as work:
        packages = download(part, sources, Path(work))
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for package in packages:
            run(["dpkg-deb", "-x", package, unfinished])
        if len(packages) > 1:
            find_libraries(unfinished / part.program)
        run([unfinished / part.program, *part.proof])
        shutil.rmtree(folder, ignore_errors=True)  # what an earlier form of the package left, without the program
        unfinished.rename(folder)
    say(f"{part.packages[0]} is ready.")


def find_libraries(program: Path) -> None:
    """Put a script in the program's place that has it find the libraries unpacked with it, wherever the folder goes."""
    real = program.with_name(f"{program.name}.program")
    # A copy, for what is a link may tell by its name what it is to do.
    shutil.copy2(program, real)
    program.unlink()
    program.write_text(WITH_LIBRARIES)
    program.chmod(0o755)


# An empty entry would be the folder one happens to be in.
WITH_LIBRARIES = """\
#!/bin/sh
for folder in "$(dirname -- "$0")"/../lib/*/; do
    LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
export LD_LIBRARY_PATH
exec "$0.program" "$@"
"""


def download(part: Part, sources: Iterable[Source], work: Path) -> list[Path]:
    """Have apt download and verify the packages into `work`."""
    apt = configured(sources, part.suite, work)
    updated = attempt([*apt, "update"], work)
    fetched = attempt([*apt, "download", *part.packages], work)  # it may be had although one of several sources failed
    packages = sorted(work.glob("*.deb"))
    if len(packages) < len(part.packages):
        names = ", ".join(part.packages)
        raise Unavailable(f"apt could not download {names} of {part.suite}:\n{updated}{fetched}".rstrip())
    return packages


def configured(sources: Iterable[Source], suite: str, work: Path) -> list[str | Path]:
    """Write a configuration with these sources alone, which writes in `work` alone; return the command of apt."""
    for folder in ("sources", "state/lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    own = {"Targets": "Packages", "Architectures": run(["dpkg", "--print-architecture"]).strip()}
    if keyring := keys(KEYRINGS, suite):
        (work / "keyring.gpg").write_bytes(keyring)
        own["Signed-By"] = str(work / "keyring.gpg")
    (work / "sources" / "all.sources").write_text("\n".join(stanza({**source, **own}) for source in sources))
    (work / "status").touch()
    (work / "preferences").write_text(PREFERENCES)
    (work / "apt.conf").write_text(CONFIGURATION.format(work=work) + (AS_ROOT if os.geteuid() == 0 else ""))
    return ["apt-get", "-c", work / "apt.conf", "--quiet=2"]


# Read after the system's own configuration, which knows the proxy. No hook of the system's is run.
CONFIGURATION = """\
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{work}/sources";
Dir::Etc::preferences "{work}/preferences";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{work}/state";
Dir::State::lists "{work}/state/lists";
Dir::State::status "{work}/status";
Dir::Cache "{work}/cache";
Dir::Cache::archives "{work}/cache/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""
# The user that root's apt downloads as may not read our folder.
AS_ROOT = 'APT::Sandbox::User "root";\n'
# Another archive may have a suite and a package of these names.
PREFERENCES = """\
Package: *
Pin: release o=Debian
Pin-Priority: 990

Package: *
Pin: release o=*
Pin-Priority: -1
"""


def keys(folder: Path, suite: str) -> bytes:
    """Return a keyring for the suite out of those that Debian's package of them has; empty when there is none."""

    def named(pattern: str) -> list[Path]:
        # One ending is the old name of the other.
        files = {file.stem: file for ending in ("gpg", "pgp") for file in sorted(folder.glob(f"{pattern}.{ending}"))}
        return list(files.values())

    own = named(f"debian-archive-{suite}-*")
    general = named("debian-archive-keyring") + named("debian-archive-removed-keys")
    return b"".join(file.read_bytes() for file in own or general)


def debian_suites(os_release: Path) -> set[str]:
    """Return the names under which this machine's sources may mean a release of Debian itself."""
    values = dict(line.split("=", 1) for line in lines_of(os_release) if "=" in line)
    own = values.get("VERSION_CODENAME", "").strip('"') if values.get("ID", "").strip('"') == "debian" else ""
    return {own, "oldstable", "stable", "testing", "unstable", "sid"} - {""}


def machine_sources(apt: Path) -> list[Source]:
    """Return the enabled sources of binary packages that are configured in the folder."""
    parts = apt / "sources.list.d"
    lists = [apt / "sources.list", *sorted(parts.glob("*.list"))]
    sources = [source for file in lists for line in lines_of(file) if (source := one_line(line))]
    for file in sorted(parts.glob("*.sources")):
        sources += deb822(lines_of(file))
    return [source for source in sources if "deb" in source.get("Types", "").split() and is_enabled(source)]


def lines_of(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8", "replace").splitlines()
    except OSError:  # not there, or not for us to read
        return []


def is_enabled(source: Source) -> bool:
    return source.get("Enabled", "yes").lower() not in {"no", "false", "0", "off", "without", "disable"}


def one_line(line: str) -> Source | None:
    """Read `deb [option=value …] URI suite component …`."""
    text = line.split("#", 1)[0].strip()
    kind, _, rest = text.partition(" ")
    options = ""
    if rest.lstrip().startswith("["):
        options, _, rest = rest.lstrip()[1:].partition("]")
    words = rest.split()
    if len(words) < 3:
        return None
    source = {"Types": kind, "URIs": words[0], "Suites": words[1], "Components": " ".join(words[2:])}
    for option in options.split():
        name, _, value = option.partition("=")
        source[FIELDS.get(name, name.title())] = value.replace(",", " ")
    return source


def deb822(lines: Iterable[str]) -> list[Source]:
    """Read stanzas of `Field: value`, in which an indented line goes on with the field."""
    stanzas: list[dict[str, str]] = [{}]
    field = ""
    for line in lines:
        if line.startswith("#"):
            continue
        if not line.strip():
            stanzas.append({})
        elif line[0].isspace():
            stanzas[-1][field] = stanzas[-1].get(field, "") + "\n" + line
        else:
            name, _, value = line.partition(":")
            field = {"uris": "URIs"}.get(name.lower(), name.title())
            stanzas[-1][field] = value.strip()
    return [each for each in stanzas if each]


def derived(sources: Iterable[Source], suites: set[str], suite: str) -> list[Source]:
    """Return the sources of Debian's own archive, with `suite` for their suites and of `main` alone."""
    return [
        {**source, "Types": "deb", "Suites": suite, "Components": "main"}
        for source in sources
        if not (suites | {suite}).isdisjoint(source.get("Suites", "").split())
        and "main" in source.get("Components", "").split()
    ]


def stanza(source: Source) -> str:
    return "".join(f"{name}: {value}\n" for name, value in source.items())


def attempt(command: list[str | Path], folder: Path) -> str:
    """Run a command; return what it complained of."""
    try:
        ran = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{error}\n"
    return ran.stderr


def run(command: list[str | Path]) -> str:
    """Run a command that must succeed; return its output."""
    try:
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        complaint = getattr(error, "stderr", None) or ""
        raise Unavailable(f"{error}\n{complaint}".rstrip()) from None
    return ran.stdout


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fail(status: int, text: str) -> int:
    say(text)
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
