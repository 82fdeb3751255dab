"""Answers that end what runs them, hold it up, or take all there is. Nobody imports this file: see `__init__`."""

import numpy as np

from . import attack

CONSTANT = None


@attack("crashed")
def exits_at_once():
    import os

    os._exit(0)


@attack("timeout", says="Is there a loop that never ends?")
def never_ends():
    while True:
        pass


@attack("memory", "timeout")  # each test takes it all again
def takes_50_mb_a_step():
    return [bytearray(50_000_000) for _ in range(240)]


@attack("memory", says="more memory than there is")
def takes_10_gb_at_once():
    return np.ones(10**10, np.int8)


@attack("failed", says="SystemExit")
def exits_politely():
    import sys

    sys.exit()


@attack("crashed", constant="exit()")
def exits_when_imported():
    return CONSTANT


@attack("failed", says="PermissionError")
def forks_like_a_bomb():
    import os
    import time

    for _ in range(300):
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)


@attack("failed", says="RecursionError")
def recurses():
    def down():
        return down()

    return down()


@attack("failed", "crashed", "timeout")  # whichever end comes first: each test builds and unwinds a million lists
def recurses_in_c():
    import sys

    sys.setrecursionlimit(10**9)
    nested = []
    for _ in range(10**6):
        nested = [nested]
    return repr(nested)


@attack("crashed", says="Python itself ended")
def reads_address_0():
    import ctypes

    return ctypes.string_at(0)


@attack("crashed", says="Python itself ended")
def kills_itself():
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@attack("failed", "crashed")  # to pytest it is Ctrl-C
def interrupts():
    raise KeyboardInterrupt


@attack("failed", says="Leaves")
def raises_a_kind_of_exit():
    class Leaves(SystemExit): ...

    raise Leaves(0)


@attack("failed", says="Unheard")
def raises_what_is_no_exception():
    class Unheard(BaseException): ...

    raise Unheard


@attack("failed", says="cannot be shown")
def says_nothing():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    raise Mute


@attack("timeout")
def never_stops_saying():
    class Babbles(Exception):
        def __str__(self):
            while True:
                pass

    raise Babbles


@attack("failed", "crashed", "memory")  # pytest itself runs out of memory
def says_a_gigabyte():
    raise ValueError("x" * 10**9)


@attack("failed")
def says_half_a_character():
    raise ValueError("\ud800 \x00 \x1b[31m <script>alert(1)</script> | [link](javascript:1) \u202e")


@attack("failed", "crashed", "memory", "timeout")
def prints_a_gigabyte():
    for _ in range(1000):
        print("x" * 10**6)


@attack("failed", "crashed", "memory", "timeout")
def complains_about_a_gigabyte():
    import sys

    for _ in range(1000):
        sys.stderr.write("x" * 10**6)


@attack("failed", "crashed", "memory", "timeout")
def writes_a_gigabyte_to_descriptors():
    import os

    for _ in range(1000):
        os.write(1, bytes(10**6))
        os.write(2, bytes(10**6))


@attack("crashed")
def closes_everything():
    import os

    os.closerange(0, 300)


@attack("timeout", "crashed")
def prints_for_ever():
    import itertools

    for i in itertools.count():
        print(i, flush=True)


@attack("timeout")
def ignores_all_signals():
    import signal

    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass


@attack("failed", "timeout")
def sleeps_after_the_tests():
    import gc
    import time

    import pytest

    for config in [found for found in gc.get_objects() if type(found) is pytest.Config]:
        config.add_cleanup(lambda: time.sleep(100))
    raise ValueError("what follows is long")


@attack("failed", says="stays behind")
def leaves_threads_and_handlers_behind():
    import atexit
    import threading
    import time

    threading.Thread(target=time.sleep, args=(100,)).start()
    atexit.register(time.sleep, 100)
    raise ValueError("something stays behind")


@attack("failed", "crashed")
def starts_thousands_of_threads():
    import os
    import threading
    import time

    threading.stack_size(32768)
    for _ in range(3000):
        threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
    os._exit(0)
