"""Where Consul is: the URL first, then the variables of Consul's own clients, then their defaults."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from meshlib.errors import SettingsError
from meshlib.registries import open_registry
from meshlib.registries.consul.address import consul_settings, read_token
from meshlib.registries.consul.client import ConsulClient


@pytest.mark.parametrize(
    ("url", "variables", "base", "canonical"),
    [
        ("consul:", {}, "http://127.0.0.1:8500", "consul://127.0.0.1:8500"),
        ("consul://", {}, "http://127.0.0.1:8500", "consul://127.0.0.1:8500"),
        ("consul://here", {}, "http://here:8500", "consul://here:8500"),
        ("consul://here:1/", {}, "http://here:1", "consul://here:1"),
        ("consul://[::1]:1", {}, "http://[::1]:1", "consul://[::1]:1"),
        ("consul://", {"CONSUL_HTTP_ADDR": "there:2"}, "http://there:2", "consul://there:2"),
        ("consul://here", {"CONSUL_HTTP_ADDR": "there:2"}, "http://here:8500", "consul://here:8500"),
        ("consul://", {"CONSUL_HTTP_ADDR": "https://there"}, "https://there:443", "consul://there:443?scheme=https"),
        ("consul://", {"CONSUL_HTTP_ADDR": "http://there:2"}, "http://there:2", "consul://there:2"),
        ("consul://here", {"CONSUL_HTTP_SSL": "true"}, "https://here:8500", "consul://here:8500?scheme=https"),
        ("consul://here?scheme=http", {"CONSUL_HTTP_SSL": "1"}, "http://here:8500", "consul://here:8500"),
        ("consul://here?dc=dc2", {}, "http://here:8500", "consul://here:8500?dc=dc2"),
    ],
)
def test_an_address_is_the_urls_before_the_variables(
    url: str, variables: dict[str, str], base: str, canonical: str
) -> None:
    settings = consul_settings(url, variables)
    assert (settings.base, settings.url) == (base, canonical)
    assert consul_settings(canonical, {}).base == base


@pytest.mark.parametrize(
    ("url", "variables"),
    [("consul:///run/consul.sock", {}), ("consul://", {"CONSUL_HTTP_ADDR": "unix:///run/consul.sock"})],
)
def test_a_unix_socket_is_a_path(url: str, variables: dict[str, str]) -> None:
    settings = consul_settings(url, variables)
    assert (settings.socket, settings.url) == ("/run/consul.sock", "consul:///run/consul.sock")


def test_the_token_is_the_arguments_then_the_files_then_the_variables() -> None:
    variables = {"CONSUL_HTTP_TOKEN": "variable", "CONSUL_HTTP_TOKEN_FILE": "/variable"}
    given = consul_settings("consul://?token_file=/url", variables, token="argument")
    assert (given.token, given.token_file) == ("argument", "")
    written = consul_settings("consul://?token_file=/url", variables)
    assert (written.token, written.token_file) == ("", "/url")
    both = consul_settings("consul://", variables)
    assert (both.token, both.token_file) == ("", "/variable")
    assert consul_settings("consul://", {"CONSUL_HTTP_TOKEN": "variable"}).token == "variable"


def test_no_secret_is_in_the_url() -> None:
    settings = consul_settings("consul://here", {"CONSUL_HTTP_TOKEN": "s3cret", "CONSUL_HTTP_AUTH": "me:pass"})
    assert settings.auth == "me:pass"
    assert settings.url == "consul://here:8500"
    assert (repr(settings), str(settings)) == ("<ConsulSettings consul://here:8500>",) * 2


@pytest.mark.parametrize(
    ("url", "overheard"),
    [
        ("consul://", False),
        ("consul://localhost:8500", False),
        ("consul://127.0.0.2", False),
        ("consul://[::1]", False),
        ("consul:///run/consul.sock", False),
        ("consul://10.0.0.5", True),
        ("consul://consul.example", True),
        ("consul://127.0.0.1.example", True),
        ("consul://10.0.0.5?scheme=https", False),
    ],
)
def test_what_a_network_would_hear_is_known(url: str, overheard: bool) -> None:
    assert consul_settings(url, {}).overheard is overheard


def test_a_client_that_can_be_overheard_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async def opened(url: str) -> None:
        client = ConsulClient(consul_settings(url, {"CONSUL_HTTP_TOKEN": "s3cret"}))
        client._opened()
        client._opened()
        await client.aclose()

    asyncio.run(opened("consul://10.0.0.5"))
    asyncio.run(opened("consul://127.0.0.1"))
    (record,) = caplog.records
    assert "consul://10.0.0.5:8500 is asked in plain text" in record.getMessage()


@pytest.mark.parametrize("token", ["s3cret\nmore", "s3cret more", "s3crét", "s3cret\x00", "s3cret" * 1000])
def test_what_is_no_token_is_refused_without_a_word_of_it(token: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token, encoding="utf-8")
    with pytest.raises(ValueError, match="printable characters") as read:
        read_token(str(file))
    with pytest.raises(SettingsError, match="CONSUL_HTTP_TOKEN") as set_:
        consul_settings("consul://", {"CONSUL_HTTP_TOKEN": token})
    with pytest.raises(SettingsError) as given:
        consul_settings("consul://", {}, token=token)
    shown = [str(caught.value) + repr(caught.value.__cause__) for caught in (read, set_, given)]
    assert not any("s3cr" in text for text in shown)


def test_a_token_file_that_is_being_written_is_no_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("\n")
    with pytest.raises(ValueError, match="it is empty"):
        read_token(str(file))
    file.write_text("s3cret\n")
    assert read_token(str(file)) == "s3cret"


def test_tls_is_set_by_consuls_variables_and_by_options() -> None:
    variables = {
        "CONSUL_CACERT": "/ca",
        "CONSUL_CAPATH": "/cas",
        "CONSUL_CLIENT_CERT": "/cert",
        "CONSUL_CLIENT_KEY": "/key",
        "CONSUL_TLS_SERVER_NAME": "server.dc1.consul",
        "CONSUL_HTTP_SSL_VERIFY": "false",
    }
    found = consul_settings("consul://", variables)
    assert (found.ca_file, found.ca_path, found.cert_file, found.key_file) == ("/ca", "/cas", "/cert", "/key")
    assert (found.server_name, found.verify) == ("server.dc1.consul", False)
    written = consul_settings("consul://?ca_file=/mine&server_name=me&verify=true", variables)
    assert (written.ca_file, written.server_name, written.verify) == ("/mine", "me", True)


def test_options_say_what_is_watched_and_how_services_are_registered() -> None:
    found = consul_settings(
        "consul://?watch=reviews,ratings&tags=a,b&check=http:/health&ttl=500ms&deregister_after=2m"
        "&stale=true&warning_weight=0&prefix=teams/mesh",
        {},
    )
    assert (found.watch, found.tags, found.check) == (("reviews", "ratings"), ("a", "b"), "/health")
    assert (found.ttl, found.deregister_after, found.stale, found.warning_weight) == (0.5, 120.0, True, 0)
    assert found.prefix == "teams/mesh"
    plain = consul_settings("consul://", {})
    assert (plain.check, plain.ttl, plain.deregister_after, plain.prefix) == ("ttl", None, 60.0, "meshlib")


@pytest.mark.parametrize(
    ("url", "variables", "named"),
    [
        ("consul://?token=s3cret", {}, "token_file"),
        ("consul://?Token=s3cret", {}, "token_file"),
        ("consul://?http_token=s3cret", {}, "token_file"),
        ("consul://?password=s3cret", {}, "token_file"),
        ("consul://?tll=1s", {}, "'tll'"),
        ("consul://?ttl=10", {}, "ttl='10'"),
        ("consul://?ttl=1s&ttl=2s", {}, "'ttl' twice"),
        ("consul://?check=tcp", {}, "check='tcp'"),
        ("consul://?dc=DC/1", {}, "dc='DC/1'"),
        ("consul://?prefix=/a", {}, "prefix='/a'"),
        ("consul://?stale=perhaps", {}, "stale is 'perhaps'"),
        ("consul://?warning_weight=-1", {}, "warning_weight='-1'"),
        ("consul://?watch=a b", {}, "watch='a b'"),
        ("consul://?scheme=ftp", {}, "'ftp'"),
        ("consul://?key_file=/key", {}, "CONSUL_CLIENT_CERT"),
        ("consul://here:port", {}, "here:port"),
        ("consul://here/path", {}, "here/path"),
        ("consul://me:pass@here", {}, "CONSUL_HTTP_AUTH"),
        ("consul://", {"CONSUL_HTTP_ADDR": "ftp://here"}, "CONSUL_HTTP_ADDR"),
        ("consul://", {"CONSUL_HTTP_SSL": "maybe"}, "CONSUL_HTTP_SSL is 'maybe'"),
        ("consul://", {"CONSUL_NAMESPACE": "team"}, "CONSUL_NAMESPACE is 'team'"),
        ("consul://", {"CONSUL_PARTITION": "team"}, "CONSUL_PARTITION is 'team'"),
    ],
)
def test_what_is_not_allowed_is_named(url: str, variables: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        consul_settings(url, variables)
    assert named in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "pass@" not in str(caught.value)


def test_opening_a_registry_speaks_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONSUL_HTTP_ADDR", raising=False)
    assert open_registry("consul://nowhere.invalid:1").url == "consul://nowhere.invalid:1"
