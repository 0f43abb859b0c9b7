"""MESHLIB_LIMITS is checked at start, and its password is shown nowhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from meshlib import Mesh
from meshlib.agent.redislimits import TIMEOUT, RedisAddress, parse_address
from meshlib.errors import SettingsError
from meshlib.settings import settings_from


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://127.0.0.1", ("redis://127.0.0.1", "redis://127.0.0.1", TIMEOUT, ())),
        ("redis://me:s3/cr@t@r.example:7000/2", None),
        ("redis://:s3cret@r.example", ("redis://:s3cret@r.example", "redis://r.example", TIMEOUT, ())),
        ("redis://[::1]:7000/2?timeout=20ms", ("redis://[::1]:7000/2", "redis://[::1]:7000/2", 0.02, ())),
        ("unix:///run/redis.sock", ("unix:///run/redis.sock", "unix:///run/redis.sock", TIMEOUT, ())),
        (
            "rediss://r.example?ca_file=/etc/ca.pem",
            ("rediss://r.example", "rediss://r.example", TIMEOUT, (("ssl_ca_certs", "/etc/ca.pem"),)),
        ),
    ],
)
def test_an_address_is_read(url: str, expected: RedisAddress | None) -> None:
    if expected is None:
        with pytest.raises(SettingsError):
            parse_address(url, "MESHLIB_LIMITS")
    else:
        assert parse_address(url, "MESHLIB_LIMITS") == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:6379", "expected redis://"),
        ("me:s3cret@localhost:6379", "expected redis://"),
        ("http://me:s3cret@localhost", "expected redis://"),
        ("redis://me:s3/cret@localhost", "expected redis://"),
        ("redis://me:s3cret@localhost:port", "expected redis://"),
        ("redis://me:s3cret@localhost:0", "expected redis://"),
        ("redis://me:s3cret@/1", "expected redis://"),
        ("redis://me:s3cret@localhost/first", "expected redis://"),
        ("unix://redis.sock", "expected redis://"),
        ("redis://localhost?password=s3cret", "known: timeout, ca_file"),
        ("redis://me:s3cret@localhost?timeout=5", "has no unit"),
        ("redis://me:s3cret@localhost?ca_file=/etc/ca.pem", "is for TLS: rediss://"),
        ("unix:///run/redis.sock?key_file=/etc/key.pem", "is for TLS: rediss://"),
    ],
)
def test_a_wrong_address_is_refused_without_showing_a_secret(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MESHLIB_LIMITS") as caught:
        Mesh("memory:", state_dir=tmp_path, limits=url)
    assert said in str(caught.value)
    assert "s3" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_settings_do_not_show_it() -> None:
    settings = settings_from({"MESHLIB_LIMITS": "redis://:s3cret@localhost"})
    assert settings.limits == "redis://:s3cret@localhost"
    assert "s3cret" not in repr(settings)
    assert "limits=''" in repr(settings_from({}))


def test_without_redis_py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "redis" else find(name))
    with pytest.raises(SettingsError, match=r"pip install 'servicemesh\[limits\]'"):
        parse_address("redis://localhost", "MESHLIB_LIMITS")
