"""Which file of the prepared viewer answers a request below /viewer, and with which headers.

All files are listed once at start and a request only looks its path up in that list, so no request can
reach any other file, whatever its path holds.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

STAMP = "stamp"
DISTRIBUTION_PREFIX = "dist-"
INDEX = "index.html"

CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".gif": "image/gif",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}
COMPRESSIBLE = frozenset({".css", ".html", ".js", ".json", ".svg", ".txt", ".wasm"})

IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"

_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'{}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'self' blob:; frame-src 'self' blob:; media-src 'self' blob:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
PAGE_POLICY = _POLICY.format("")
# A worker is bound by the policy of its own script. The decoders for JPEG, JPEG-LS and surfaces build their
# calling code from text, so the workers may evaluate text; the page, which shows names and texts out of
# images, may not.
WORKER_POLICY = _POLICY.format(" 'unsafe-eval'")
_BUNDLE_RUNTIME = b"__webpack_require__.p = "  # in scripts that start an application of their own
_PAGE_BUNDLE = "app.bundle."


@dataclass(frozen=True)
class ViewerFile:
    """A file and the headers to send with it."""

    path: Path
    """The file whose bytes are the body, already in `encoding`."""
    size: int
    """Its length in bytes."""
    content_type: str
    encoding: str | None
    """Content-Encoding: "gzip" or None. Send `Vary: Accept-Encoding` in both cases."""
    cache_control: str
    etag: str
    """Strong entity tag in quotes, different for each encoding."""
    content_security_policy: str


class ViewerFiles:
    """The files of one prepared viewer folder."""

    def __init__(self, folder: Path) -> None:
        """List and hash the files; FileNotFoundError if the folder holds no complete viewer."""
        if not (folder / STAMP).is_file() or not (folder / INDEX).is_file():
            raise FileNotFoundError(f"{folder}: no prepared viewer (python -m node.viewer.prepare makes it)")
        self._plain: dict[str, ViewerFile] = {}
        self._gzipped: dict[str, ViewerFile] = {}
        for path in sorted(folder.rglob("*")):
            content_type = CONTENT_TYPES.get(path.suffix)
            if content_type is None or not path.is_file():
                continue
            name = path.relative_to(folder).as_posix()
            worker = _BUNDLE_RUNTIME in path.read_bytes() and not path.name.startswith(_PAGE_BUNDLE)
            policy = WORKER_POLICY if worker else PAGE_POLICY
            self._plain[name] = _describe(path, name, content_type, None, policy)
            packed = path.with_name(path.name + ".gz")
            if packed.is_file():
                self._gzipped[name] = _describe(packed, name, content_type, "gzip", policy)

    def find(self, url_path: str, accepts_gzip: bool = False) -> ViewerFile | None:
        """The file for a decoded path below /viewer, such as "/" or "/app-config.js"; None means 404.

        A path that is no file and does not look like one is an address inside the application, which
        its own router reads: it gets the index page.
        """
        name = url_path.strip("/")
        segments = name.split("/")
        if any(segment in (".", "..") for segment in segments) or "\\" in name or "\0" in name:
            return None
        if name not in self._plain:
            if PurePosixPath(name).suffix or name == STAMP:
                return None
            name = INDEX
        return (self._gzipped.get(name) if accepts_gzip else None) or self._plain[name]


def _describe(path: Path, name: str, content_type: str, encoding: str | None, policy: str) -> ViewerFile:
    data = path.read_bytes()
    return ViewerFile(
        path=path,
        size=len(data),
        content_type=content_type,
        encoding=encoding,
        cache_control=IMMUTABLE if name.startswith(DISTRIBUTION_PREFIX) else REVALIDATE,
        etag=f'"{hashlib.sha256(data).hexdigest()[:32]}"',
        content_security_policy=policy,
    )
