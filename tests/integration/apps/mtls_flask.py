"""Flask's own server on the mesh's TLS."""

from __future__ import annotations

from mtls_app import wsgi

import meshlib

if __name__ == "__main__":
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", 0, wsgi(), ssl_context=meshlib.server_ssl_context(), threaded=True)
