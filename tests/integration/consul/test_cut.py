"""The proxy that breaks the network does what it is told; seen through a real agent's answers."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing
from time import monotonic

import pytest

from tests.support import cut as rubbish
from tests.support.consul import ConsulAgent
from tests.support.cut import Cut

LEADER = "/v1/status/leader"
SERVICES = "/v1/catalog/services"


@pytest.fixture
def cut(consul: ConsulAgent) -> Iterator[Cut]:
    with Cut(consul.address) as proxy:
        yield proxy


def connect(cut: Cut, timeout: float = 10.0) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(cut.address, timeout=timeout)


def ask(cut: Cut, path: str = SERVICES) -> tuple[http.client.HTTPResponse, bytes]:
    with closing(connect(cut)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer, answer.read()


def test_healthy_it_passes_everything_on(cut: Cut, consul: ConsulAgent) -> None:
    with closing(connect(cut)) as connection:
        for number in (b"1", b"2"):
            connection.request("PUT", "/v1/kv/cut-passed", number)
            assert connection.getresponse().read() == b"true"
    assert consul.get("/v1/kv/cut-passed")[0]["Value"] == "Mg=="


def test_refusing_it_resets_open_connections_and_new_ones(cut: Cut) -> None:
    with closing(connect(cut)) as connection:
        connection.request("GET", LEADER)
        connection.getresponse().read()
        cut.refuse()
        with pytest.raises(ConnectionResetError):
            connection.sock.recv(1)
    with pytest.raises(ConnectionError):
        ask(cut)
    cut.heal()
    assert ask(cut)[0].status == 200


def test_what_waits_in_silence_goes_on_where_it_stood_once_it_is_healed(cut: Cut) -> None:
    with closing(connect(cut, 0.2)) as connection:
        cut.silence()
        connection.request("GET", LEADER)
        with pytest.raises(TimeoutError):
            connection.getresponse()
        cut.heal()
        connection.sock.settimeout(10.0)
        assert connection.sock.recv(12) == b"HTTP/1.1 200"


def test_slowed_down_each_piece_takes_its_time(cut: Cut) -> None:
    cut.slow(0.002, size=1)
    before = monotonic()
    ask(cut)
    assert monotonic() - before > 0.2  # a hundred bytes and more, both ways


def test_a_blocking_query_is_garbled_at_once(cut: Cut, consul: ConsulAgent) -> None:
    index = consul.request("GET", SERVICES).index
    cut.garble(rubbish.null)
    answer, body = ask(cut, f"{SERVICES}?index={index}&wait=5m")
    assert (answer.status, body, cut.answered) == (200, b"null", 1)


def test_a_query_that_was_under_way_is_reset_when_the_rubbish_begins(cut: Cut) -> None:
    with closing(connect(cut)) as connection:
        connection.request("GET", "/v1/kv/cut-never")  # its own index: that of services may lie behind it
        answer = connection.getresponse()
        answer.read()
        connection.request("GET", f"/v1/kv/cut-never?index={answer.getheader('X-Consul-Index')}&wait=5m")
        cut.garble(rubbish.html)
        with pytest.raises(ConnectionError):
            connection.getresponse()
    assert b"<html>" in ask(cut)[1]


def test_an_answer_that_is_cut_short_breaks_off_before_its_length(cut: Cut) -> None:
    cut.garble(rubbish.truncated)
    with pytest.raises(http.client.IncompleteRead):
        ask(cut)


def test_each_kind_of_rubbish_is_what_its_name_says(cut: Cut, consul: ConsulAgent) -> None:
    good = consul.request("GET", SERVICES).body
    cut.garble(rubbish.half_json)
    assert ask(cut)[1] == good[: len(good) // 2]
    cut.garble(rubbish.server_error)
    assert (ask(cut)[0].status, ask(cut)[1]) == (500, b"No cluster leader")
    cut.garble(rubbish.deep)
    assert ask(cut)[1].startswith(b"[[[[")
    cut.garble(rubbish.index(0))
    assert (ask(cut)[0].getheader("X-Consul-Index"), ask(cut)[1]) == ("0", good)
    cut.garble(rubbish.no_index)
    assert (ask(cut)[0].getheader("X-Consul-Index"), ask(cut)[1]) == (None, good)
    cut.garble(rubbish.huge(1_000_000))
    assert len(ask(cut)[1]) == 1_000_000
    cut.garble(rubbish.bomb(1_000_000))
    answer, body = ask(cut)
    assert answer.getheader("Content-Encoding") == "gzip"
    assert len(body) < 10_000


def test_it_closes_in_the_middle_of_everything(consul: ConsulAgent) -> None:
    cut = Cut(consul.address)
    host, port = cut.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10.0) as waiting:
        cut.silence()
        waiting.sendall(b"GET / HTTP/1.1\r\n\r\n")
        cut.close()
        with pytest.raises(ConnectionError):
            waiting.recv(1)
