"""hypercorn's configuration, as docs/how-to/mtls-servers.md has it."""

from meshlib import server_ssl_context as create_ssl_context  # noqa: F401 - hypercorn calls it

certfile = keyfile = ""
