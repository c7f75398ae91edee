"""The HTTP server: search over an index, its media, and the page that shows both."""

from importlib.util import find_spec

from mmembed.errors import MissingDependencyError

if not all(find_spec(name) for name in ("fastapi", "uvicorn", "python_multipart")):
    raise MissingDependencyError("the server", "server")
