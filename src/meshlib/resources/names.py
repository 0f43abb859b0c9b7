"""Host names as Istio reads them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Container

__all__ = ["aliases", "fqdn", "host_fault", "service_name"]

_SUFFIX = ".svc.cluster.local"
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_SERVICE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DATACENTER = re.compile(r"[a-z0-9_-]{1,63}")
_MAX_HOST = 253


def fqdn(host: str, namespace: str) -> str:
    """The full name of `host` when it is written in a document of `namespace`.

    A name without a dot is a service of that namespace, as in Istio's ResolveShortnameToFQDN; anything else, "*"
    included, stays. The answer is lower case and has no trailing dot.
    """
    host = host.lower().removesuffix(".")
    if "." in host or ":" in host or host in ("", "*"):
        return host
    return f"{host}.{namespace.lower()}{_SUFFIX}"


def aliases(full: str, namespace: str) -> tuple[str, ...]:
    """Every name by which a caller in `namespace` may ask for the host `full`, the full name first."""
    name, dot, home = full.removesuffix(_SUFFIX).partition(".")
    if not full.endswith(_SUFFIX) or not dot or "." in home:
        return (full,)
    names = (full, f"{name}.{home}.svc", f"{name}.{home}")
    return (*names, name) if home == namespace.lower() else names


def service_name(host: str, namespace: str, namespaces: Container[str] = ()) -> str | None:
    """The full name of the service that a caller may mean by a URL's host; None when it can't be a service's.

    `reviews` is a service of the caller's own namespace, `reviews.shop` one of another only when that is known to be a
    namespace: it might as well be a host on the internet. `reviews.service.consul` and `reviews.service.dc2.consul` are
    the names of Consul's DNS: of its namespace `default` here, and of another datacenter.

    Args:
        host: without a port, in any case.
        namespace: of the caller.
        namespaces: that are known besides.
    """
    host = host.lower().removesuffix(".")
    if len(host) > _MAX_HOST:
        return None
    name, *rest = host.split(".")
    if not _SERVICE.fullmatch(name) or host == "localhost":
        return None
    match rest:
        case []:
            return fqdn(name, namespace)
        case [home] if home == namespace.lower() or home in namespaces:
            return fqdn(name, home)
        case [home, "svc"] | [home, "svc", "cluster", "local"] if _SERVICE.fullmatch(home):
            return fqdn(name, home)
        case ["service", "consul"]:
            return fqdn(name, "default")
        case ["service", datacenter, "consul"] if _DATACENTER.fullmatch(datacenter):
            return host
    return None


def host_fault(host: str, *, wildcard: bool) -> str | None:
    """What is wrong with a host name, None when nothing is.

    Args:
        host: a DNS name, an IP address or, where `wildcard` allows it, "*" or a name that begins with "*.".
        wildcard: whether "*" may stand as the first label.
    """
    if wildcard and host == "*":
        return None
    if "*" in host and not (wildcard and host.startswith("*.") and "*" not in host[2:]):
        return 'has a "*" where none is allowed' + (': only "*" alone or "*." in front of a name' if wildcard else "")
    name = host.removeprefix("*.").removesuffix(".")
    if not name or len(host) > _MAX_HOST:
        return f"is not a host name: 1 to {_MAX_HOST} characters expected"
    if _is_address(name) or all(_LABEL.fullmatch(label) for label in name.split(".")):
        return None
    return "is not a host name: letters, digits, '-' and '_' between dots expected, at most 63 in each part"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
