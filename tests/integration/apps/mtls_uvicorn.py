"""`python mtls_uvicorn.py http loop`: as docs/how-to/mtls-servers.md has it."""

from __future__ import annotations

import sys

import uvicorn
from mtls_app import app

import meshlib

if __name__ == "__main__":
    uvicorn.run(
        app,
        port=0,
        http=sys.argv[1],  # type: ignore[arg-type]
        loop=sys.argv[2],
        access_log=False,
        ssl_context_factory=lambda config, default: meshlib.server_ssl_context(),
    )
