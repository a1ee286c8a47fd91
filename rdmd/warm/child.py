"""What a copy of the warm process does to become what `python -m` would have made."""

import atexit
import contextlib
import ctypes
import os
import runpy
import signal
import sys
import threading
from typing import NoReturn

from rdmd.warm.protocol import Request

PR_SET_PDEATHSIG = 1
INTERRUPTED = 130
# glibc's parameters of `mallopt`, which it reads at a process's start by these names.
MALLOPT = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}
# In the order in which OpenBLAS asks.
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")


def become(request: Request, streams: list[int], imported: dict[str, str], parent: int) -> None:
    """Take over streams, environment, signals and session. imported: variables that imports have set."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Should the warm process be killed: as when a terminal closes, trainings leave a checkpoint.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    environment = imported | request.environment
    os.environ.clear()
    os.environ.update(environment)
    for stream in (sys.stdout, sys.stderr):
        at_once = stream is sys.stderr or stream.isatty() or bool(environment.get("PYTHONUNBUFFERED"))
        stream.reconfigure(line_buffering=at_once)
    for name, parameter in MALLOPT.items():
        if environment.get(name, "").isdigit():
            libc.mallopt(parameter, int(environment[name]))
    _blas_threads(environment)


def run(request: Request) -> int:
    """Run the module. Returns the exit status that Python would give it."""
    sys.argv = [request.module, *request.arguments]
    try:
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        return INTERRUPTED
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def leave(status: int) -> NoReturn:
    """End as Python does, without taking down every module first: that would write to all the memory that is shared
    with the warm process, and so copy it, which takes two seconds."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _blas_threads(environment: dict[str, str]) -> None:
    """The warm process has none, since threads do not survive a fork; give what a new one would have started."""
    import threadpoolctl

    given = next((environment[name] for name in BLAS_THREADS if environment.get(name, "").isdigit()), None)
    cores = len(os.sched_getaffinity(0))
    threads = min(int(given), cores) if given and int(given) else cores
    threadpoolctl.threadpool_limits(threads, user_api="blas")
