"""An application that tells one failure of the mesh from another."""

from __future__ import annotations

from meshlib import errors


def advice(error: errors.MeshError) -> str:
    if isinstance(error, errors.RegistryError):
        return "the last good configuration serves on"
    return str(error)


advice("not an error")  # type: ignore[arg-type]
