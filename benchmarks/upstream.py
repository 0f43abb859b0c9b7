"""A server that answers every request with the same small response, as cheaply as asyncio lets it; over TLS too."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys

REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nhello, world\n"


class Answer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        self._seen += data
        while b"\r\n\r\n" in self._seen:
            self._seen = self._seen.partition(b"\r\n\r\n")[2]
            self._transport.write(REPLY)  # type: ignore[attr-defined]


async def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    context = None
    if len(sys.argv) > 2:  # the path of a certificate with its key, for TLS
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2])
    server = await asyncio.get_running_loop().create_server(Answer, sock=listener, ssl=context)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
