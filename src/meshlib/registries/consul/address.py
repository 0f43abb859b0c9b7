"""Where Consul is and how to treat it: a `consul:` URL, and the CONSUL_* variables for what the URL doesn't say."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from meshlib.errors import SettingsError

__all__ = ["ConsulSettings", "consul_settings"]

T = TypeVar("T")

DEFAULT_PORT = 8500

_NAME = re.compile(r"[a-z0-9_-]{1,63}")
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_HOST = re.compile(r"[A-Za-z0-9._:%-]{1,253}")
_TOKEN = re.compile(r"[!-~]{1,4096}")
_HERE = re.compile(r"localhost|::1|127(\.[0-9]+){3}")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class ConsulSettings(NamedTuple):
    """One Consul agent, and what this process wants of it.

    Attributes:
        url: the registry's URL, full and without any secret.
        base: what requests begin with, as `http://127.0.0.1:8500`.
        socket: path of a Unix socket, "": TCP.
        datacenter: asked for instead of the agent's own, "": the agent's own.
        token: the ACL token, "": none, or that of `token_file`.
        token_file: holds the ACL token; read again when it changes.
        auth: `user:password` for HTTP basic authentication, "": none.
        ca_file, ca_path: who signs Consul's own certificate, "": the system's roots.
        cert_file, key_file: our certificate for Consul, "": none.
        server_name: what Consul's certificate must name, "": the host.
        verify: whether Consul's certificate is checked at all.
        prefix: of the keys that hold documents.
        watch: services watched although nobody has called them; `*` stands for all there are.
        tags: that our own registrations wear.
        check: `ttl`, or the path of an HTTP check.
        ttl: seconds a registration lasts without renewal, None: the caller's.
        deregister_after: seconds a registration may be critical before Consul takes it out; Consul's least is 60.
        stale: whether any server may answer, and not only the leader.
        warning_weight: share of traffic of an instance of ours whose checks warn.
    """

    url: str
    base: str
    socket: str = ""
    datacenter: str = ""
    token: str = ""
    token_file: str = ""
    auth: str = ""
    ca_file: str = ""
    ca_path: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    verify: bool = True
    prefix: str = "meshlib"
    watch: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    check: str = "ttl"
    ttl: float | None = None
    deregister_after: float = 60.0
    stale: bool = False
    warning_weight: int = 1

    @property
    def overheard(self) -> bool:
        """Whether the network hears what is said: the token that is sent, and the key that comes with a certificate."""
        host = urlsplit(self.base).hostname or ""
        here = bool(self.socket) or _HERE.fullmatch(host) is not None
        return self.base.startswith("http:") and not here

    def __repr__(self) -> str:
        return f"<ConsulSettings {self.url}>"  # and neither token nor password


class _Where(NamedTuple):
    scheme: str
    host: str
    port: int
    socket: str


def consul_settings(url: str, environ: Mapping[str, str] = os.environ, *, token: str | None = None) -> ConsulSettings:
    """What `url` says, else what the CONSUL_* variables say, else Consul's defaults.

    Args:
        url: `consul://[host[:port]][?options]`, or `consul:///path/of.sock[?options]` for a Unix socket.
        environ: the variables; those that Consul's own clients honour.
        token: an ACL token, before any file or variable.

    Raises:
        SettingsError: a part of the URL or a variable is not allowed; the message names it, its value and what is.
    """
    options = _options(url)
    for name in ("CONSUL_NAMESPACE", "CONSUL_PARTITION"):
        if environ.get(name, "") not in {"", "default"}:
            raise SettingsError(
                f"{name} is {environ[name]!r}; only Consul Enterprise has those, and meshlib's namespaces are"
                " MESHLIB_NAMESPACE: unset it"
            )

    def text(option: str, variable: str = "", default: str = "") -> str:
        return options.get(option) or (environ.get(variable) if variable else None) or default

    where = _where(url, options, environ)
    token_file = text("token_file", "CONSUL_HTTP_TOKEN_FILE") if token is None else ""
    if token is None and not token_file:
        token = environ.get("CONSUL_HTTP_TOKEN", "").strip()
    if token and not _TOKEN.fullmatch(token):
        raise SettingsError(f"the ACL token for Consul (CONSUL_HTTP_TOKEN) is none: {_PRINTABLE}")
    auth = environ.get("CONSUL_HTTP_AUTH", "")
    cert_file, key_file = text("cert_file", "CONSUL_CLIENT_CERT"), text("key_file", "CONSUL_CLIENT_KEY")
    if key_file and not cert_file:
        raise SettingsError(f"the key {key_file} for Consul has no certificate; set cert_file or CONSUL_CLIENT_CERT")
    return ConsulSettings(
        url=_canonical(where, options),
        base=f"{where.scheme}://{_bracketed(where.host)}:{where.port}",
        socket=where.socket,
        datacenter=_checked(url, options, "dc", _name, ""),
        token=token or "",
        token_file=token_file,
        auth=auth if ":" in auth or not auth else f"{auth}:",
        ca_file=text("ca_file", "CONSUL_CACERT"),
        ca_path=text("ca_path", "CONSUL_CAPATH"),
        cert_file=cert_file,
        key_file=key_file,
        server_name=text("server_name", "CONSUL_TLS_SERVER_NAME"),
        verify=_flag(options, "verify", environ, "CONSUL_HTTP_SSL_VERIFY", True),
        prefix=_checked(url, options, "prefix", _prefix, "meshlib"),
        watch=_checked(url, options, "watch", _names, ()),
        tags=_checked(url, options, "tags", _words, ()),
        check=_checked(url, options, "check", _check, "ttl"),
        ttl=_checked(url, options, "ttl", _seconds, None),
        deregister_after=_checked(url, options, "deregister_after", _seconds, 60.0),
        stale=_flag(options, "stale", {}, "", False),
        warning_weight=_checked(url, options, "warning_weight", _weight, 1),
    )


_PRINTABLE = "expected up to 4096 printable characters of ASCII without a space or a line's end between them"

_SECRET = re.compile("token|password|secret", re.IGNORECASE)

_OPTIONS = {
    "ca_file", "ca_path", "cert_file", "check", "dc", "deregister_after", "key_file", "prefix", "scheme", "server_name",
    "stale", "tags", "token_file", "ttl", "verify", "warning_weight", "watch",
}  # fmt: skip


def _options(url: str) -> dict[str, str]:
    query = url.partition("?")[2]
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=64) if query else ():
        if name != "token_file" and _SECRET.search(name):
            raise SettingsError(
                f"the registry's URL has the option {name[:20]!r}, and URLs are shown in logs;"
                " set CONSUL_HTTP_TOKEN or token_file"
            )
        if name not in _OPTIONS:
            raise SettingsError(
                f"the registry {_shown(url)} has the option {name!r}; known: {', '.join(sorted(_OPTIONS))}"
            )
        if name in options:
            raise SettingsError(f"the registry {_shown(url)} has the option {name!r} twice")
        options[name] = value
    return options


def _where(url: str, options: Mapping[str, str], environ: Mapping[str, str]) -> _Where:
    """The address the URL has, else that of CONSUL_HTTP_ADDR, else 127.0.0.1:8500."""
    rest = url.partition(":")[2].partition("?")[0]
    secure = _flag({}, "", environ, "CONSUL_HTTP_SSL", False)
    scheme = "https" if secure else "http"
    if rest.startswith("///"):
        where = _Where(scheme, "localhost", DEFAULT_PORT, unquote(rest.removeprefix("//")))
    elif authority := rest.removeprefix("//").removesuffix("/"):
        where = _Where(scheme, *_host_and_port(authority, f"the registry {_shown(url)}", DEFAULT_PORT), "")
    else:
        where = _variable(environ.get("CONSUL_HTTP_ADDR", ""), scheme)
    written = options.get("scheme")
    if written is not None and written not in {"http", "https"}:
        raise SettingsError(f"the registry {_shown(url)} has the scheme {written!r}; expected http or https")
    return where._replace(scheme=written) if written else where


def _variable(text: str, scheme: str) -> _Where:
    """CONSUL_HTTP_ADDR as Consul's own clients read it: `host:port`, `http(s)://host[:port]` or `unix:///path`."""
    if not text:
        return _Where(scheme, "127.0.0.1", DEFAULT_PORT, "")
    name = f"CONSUL_HTTP_ADDR ({_shown(text)})"
    written, sign, rest = text.partition("://")
    if not sign:
        return _Where(scheme, *_host_and_port(text, name, DEFAULT_PORT), "")
    if written == "unix" and rest.startswith("/"):
        return _Where(scheme, "localhost", DEFAULT_PORT, rest)
    if written not in {"http", "https"}:
        raise SettingsError(f"{name} is of no known form; expected host:port, http(s)://host:port or unix:///path")
    scheme = "https" if "https" in {scheme, written} else "http"
    return _Where(scheme, *_host_and_port(rest.removesuffix("/"), name, 443 if scheme == "https" else 80), "")


def _host_and_port(authority: str, name: str, default: int) -> tuple[str, int]:
    expected = "expected host:port, such as 127.0.0.1:8500 or [::1]:8500"
    if "@" in authority:
        raise SettingsError(f"{name} has a user name or password in it; set CONSUL_HTTP_AUTH instead")
    try:
        parts = urlsplit(f"//{authority}")
        host, port = parts.hostname or "", parts.port or default
    except ValueError as error:
        raise SettingsError(f"{name} is no address: {error}; {expected}") from None
    if parts.path or parts.query or parts.fragment or not _HOST.fullmatch(host):
        raise SettingsError(f"{name} is no address; {expected}")
    return host, port


def _canonical(where: _Where, options: Mapping[str, str]) -> str:
    shown = dict(options)
    shown.pop("scheme", None)
    if where.scheme == "https":
        shown["scheme"] = "https"
    address = where.socket or f"{_bracketed(where.host)}:{where.port}"
    query = urlencode(sorted(shown.items()), safe="/:*,")
    return f"consul://{address}" + (f"?{query}" if query else "")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _shown(url: str) -> str:
    """A URL for messages, without what may be a password."""
    return repr(re.sub(r"//[^/?]*@", "//…@", url)[:200])


def _flag(options: Mapping[str, str], option: str, environ: Mapping[str, str], variable: str, default: bool) -> bool:
    """A switch in the words that Consul's own clients take."""
    name, text = (option, options[option]) if option in options else (variable, environ.get(variable, ""))
    if not text:
        return default
    if text not in _TRUE + _FALSE:
        raise SettingsError(f"{name} is {text!r}; expected true or false")
    return text in _TRUE


def _checked(url: str, options: Mapping[str, str], name: str, read: Callable[[str], T], default: T) -> T:
    if name not in options:
        return default
    try:
        return read(options[name])
    except ValueError as error:
        raise SettingsError(f"the registry {_shown(url)} has {name}={options[name][:80]!r}; expected {error}") from None


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("lower case letters, digits, '-' and '_', as in dc1")
    return text


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ValueError("a key's beginning without slashes at its ends, as in meshlib or teams/mesh")
    return text


def _names(text: str) -> tuple[str, ...]:
    names = _words(text)
    if not all(name == "*" or re.fullmatch(r"[A-Za-z0-9._-]{1,253}", name) for name in names):
        raise ValueError("names of services with commas, as in reviews,ratings, or * for all of them")
    return names


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))


def _check(text: str) -> str:
    path = text.removeprefix("http:")
    if text == "ttl":
        return text
    if path == text or not re.fullmatch(r"/[!-~]{0,500}", path):
        raise ValueError("ttl, or http: and a path, as in http:/health")
    return path


def _seconds(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None or float(found[1]) <= 0:
        raise ValueError("a duration such as 10s, 500ms or 1m")
    return float(found[1]) * _UNITS[found[2]]


def _weight(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError("0 to 65535")
    return int(text)


def read_token(path: str) -> str:
    """The token in a file. Raises OSError, ValueError.

    What is no token is said without it. Neither is an empty file one, as it is for a moment when it is written anew: to
    ask as nobody would bring answers from which Consul has left everything out.
    """
    with Path(path).open("rb") as file:
        text = file.read(4200).decode("ascii", "replace").strip()
    if not _TOKEN.fullmatch(text):
        raise ValueError("it is empty" if not text else _PRINTABLE)
    return text
