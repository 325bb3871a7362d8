"""The keys of a RADOS pool, listed through librados itself.

python3-rados's own iterator ends the same way at the last object and at an error (a time-out, say):
a listing cut short would look complete, and a catalog rebuilt from it would have lost studies without
anybody knowing. librados tells the two apart (-ENOENT is the end), and ctypes lets us hear it. The
binding does not give its handle away, hence a connection per listing.
"""

import ctypes
import errno
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_Handle = ctypes.c_void_p
_Text = ctypes.c_char_p


def list_keys(conf: Path, user: str, pool: str, options: Mapping[str, str]) -> Iterator[str]:
    """Every key in the pool's default namespace, streamed, in no order; OSError when it cannot go on.

    `options` are Ceph's own, set after `conf` is read; time-outs among them bound each step.
    """
    library = _library()
    cluster, objects, listing = _Handle(), _Handle(), _Handle()
    _must(library.rados_create2(ctypes.byref(cluster), b"ceph", user.encode(), ctypes.c_uint64(0)))
    try:
        _must(library.rados_conf_read_file(cluster, os.fsencode(conf)))
        for option, value in options.items():
            _must(library.rados_conf_set(cluster, option.encode(), value.encode()))
        _must(library.rados_connect(cluster))
        _must(library.rados_ioctx_create(cluster, pool.encode(), ctypes.byref(objects)))
        _must(library.rados_nobjects_list_open(objects, ctypes.byref(listing)))
        entry = _Text()
        while True:
            code = library.rados_nobjects_list_next(listing, ctypes.byref(entry), None, None)
            if code == -errno.ENOENT:
                return
            _must(code)
            yield (entry.value or b"").decode(errors="replace")
    finally:
        if listing:
            library.rados_nobjects_list_close(listing)
        if objects:
            library.rados_ioctx_destroy(objects)
        library.rados_shutdown(cluster)


def _must(code: int) -> None:
    if code < 0:
        raise OSError(-code, os.strerror(-code))


@functools.cache
def _library() -> ctypes.CDLL:
    """librados with the types of what is used here (rados/librados.h)."""
    library = ctypes.CDLL("librados.so.2")
    reference = ctypes.POINTER(_Handle)
    texts = ctypes.POINTER(_Text)
    for name, arguments in {
        "rados_create2": [reference, _Text, _Text, ctypes.c_uint64],
        "rados_conf_read_file": [_Handle, _Text],
        "rados_conf_set": [_Handle, _Text, _Text],
        "rados_connect": [_Handle],
        "rados_ioctx_create": [_Handle, _Text, reference],
        "rados_nobjects_list_open": [_Handle, reference],
        "rados_nobjects_list_next": [_Handle, texts, texts, texts],
    }.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    for name in ("rados_nobjects_list_close", "rados_ioctx_destroy", "rados_shutdown"):
        function = getattr(library, name)
        function.argtypes, function.restype = [_Handle], None
    return library
