"""A uvicorn that knows no `ssl_context_factory`, as docs/how-to/mtls-servers.md has it."""

from __future__ import annotations

import uvicorn
from mtls_app import app

import meshlib

if __name__ == "__main__":
    config = uvicorn.Config(app, port=0, access_log=False)
    config.load()
    config.ssl = meshlib.server_ssl_context()
    uvicorn.Server(config).run()
