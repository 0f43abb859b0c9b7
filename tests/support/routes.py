"""A document whose being in force can be seen: the route it gives `reviews` has a name."""

from __future__ import annotations

__all__ = ["route_named"]


def route_named(name: str) -> str:
    """A VirtualService that sends the calls of `reviews` to `reviews`, by a route of this name."""
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  http:
  - name: {name}
    route: [{{destination: {{host: reviews}}}}]
"""
