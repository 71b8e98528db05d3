"""How the garbage collector works in a server that has started."""

import gc


def settle() -> None:
    """What is there now stays: the collector need not look at it again, nor as often at what comes and goes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
