"""A Flask service in the mesh: `ratings`.

MESHLIB_SERVICE=ratings flask --app examples/flask_app run --port 8003
MESHLIB_SERVICE=ratings gunicorn --chdir examples --workers 2 --bind 127.0.0.1:8003 flask_app:app
python examples/batch.py ratings
"""

from __future__ import annotations

from typing import Any

from flask import Flask

import meshlib

app = Flask(__name__)


@app.get("/<int:product>")
def rating(product: int) -> dict[str, Any]:
    return {"product": product, "stars": 1 + product % 5, "seconds left": meshlib.remaining()}


app.wsgi_app = meshlib.WSGIMiddleware(app.wsgi_app)  # type: ignore[method-assign]
