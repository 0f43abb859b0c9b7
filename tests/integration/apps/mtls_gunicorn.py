"""gunicorn's configuration, as docs/how-to/mtls-servers.md has it."""

certfile = "/dev/null"


def ssl_context(config, default_factory):  # type: ignore[no-untyped-def]
    import meshlib

    return meshlib.server_ssl_context()


def post_fork(server, worker):  # type: ignore[no-untyped-def]
    import meshlib

    meshlib.server_ssl_context()
