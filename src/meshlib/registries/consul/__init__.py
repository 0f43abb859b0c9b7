"""Consul as the registry: services, documents, its own mesh configuration and its intentions."""
