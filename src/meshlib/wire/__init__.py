"""Sockets and HTTP: connections, channels, bodies, the httpx transports."""
