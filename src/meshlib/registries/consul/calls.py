"""py-consul's typed calls on our client: it builds the requests, and ours sends them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from consul.base import Consul, HTTPClient, Response  # type: ignore[import-untyped]  # it ships no types

if TYPE_CHECKING:
    from meshlib.registries.consul.client import ConsulClient

__all__ = ["Calls"]


class _Adapter(HTTPClient):  # type: ignore[misc]  # py-consul's classes have no types here
    """py-consul's idea of an HTTP client, on ours."""

    def __init__(self, client: ConsulClient) -> None:
        super().__init__()
        self._client = client

    def get(self, callback: Any, path: str, params: Any = None, headers: Any = None, raw: bool = False) -> Any:
        return self._ask("GET", callback, path, params)

    def put(self, callback: Any, path: str, params: Any = None, data: Any = "", headers: Any = None) -> Any:
        return self._ask("PUT", callback, path, params, data)

    def delete(self, callback: Any, path: str, params: Any = None, data: Any = "", headers: Any = None) -> Any:
        return self._ask("DELETE", callback, path, params, data)

    def post(self, callback: Any, path: str, params: Any = None, data: Any = "", headers: Any = None) -> Any:
        return self._ask("POST", callback, path, params, data)

    def close(self) -> Coroutine[Any, Any, None]:
        return self._client.aclose()

    async def _ask(
        self, method: str, callback: Callable[[Response], Any], path: str, params: Any, data: str | bytes = ""
    ) -> Any:
        body = data.encode() if isinstance(data, str) else data
        asked = [(name, str(value)) for name, value in params or ()]
        answer = await self._client.request(method, quote(path, safe="/:"), asked, body)
        return callback(Response(answer.status, answer.headers, answer.data.decode("utf-8", "replace")))


class Calls(Consul):  # type: ignore[misc]  # as above
    """py-consul's typed calls. Its own headers are left out: it would let CONSUL_HTTP_TOKEN override our token."""

    def __init__(self, client: ConsulClient) -> None:
        self._client = client
        super().__init__(host="127.0.0.1", port=1, scheme="http", verify=True)
        self.token = None

    def http_connect(self, *args: Any, **kwargs: Any) -> _Adapter:
        return _Adapter(self._client)
