"""Makes decoding processes, and no others, die of files that begin with a word; put on PYTHONPATH by tests."""

import sys

if "appliance.decode_worker" in sys.orig_argv:
    import os
    import resource
    import signal
    import time
    from collections.abc import Callable

    import appliance.decode as decoders

    def _grow(held: list[bytearray]) -> None:
        while True:
            held.append(bytearray(1 << 26))

    def _spin() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (1, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        while True:
            pass

    WORDS: dict[bytes, Callable[[], object]] = {
        b"SEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        b"EXIT": lambda: os._exit(3),
        b"HANG": lambda: time.sleep(3600),
        b"SPIN": _spin,
        b"GROW": lambda: _grow([]),
        b"LONG": lambda: os.ftruncate(os.memfd_create("long"), 1 << 40),
        b"ODDS": lambda: dict[str, str]()["of no meaning"],
    }
    before = decoders._decoder_of

    def decoder_of(content: memoryview, name: str) -> object:
        word = bytes(content[:4])
        if word in WORDS:
            WORDS[word]()
        return before(content, name)

    decoders._decoder_of = decoder_of  # type: ignore[assignment]
