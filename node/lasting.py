"""What a process has made by the time it serves lasts as long as the process: libraries, tables, routes.

Left to itself, the garbage collector goes through all of it now and then: some 90,000 objects, 50 to 100 ms
in which none of the process's threads gets on, and an image or a frame comes that much later.
"""

import gc


def settle() -> None:
    """Throw away what start-up left behind, and look at the rest no more. Call once, before serving."""
    gc.collect()
    gc.freeze()
