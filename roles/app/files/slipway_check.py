"""Says whether a server that is told to reload would come back: `slipway_check.py CONFIGURATION SECONDS`.

A SIGHUP onto something broken ends gunicorn, so the unit's ExecReload runs this first, in the app's own sandbox, with
its environment and its secrets. It loads gunicorn's configuration, imports the worker and the app, and runs the app's
lifespan once. It exits with 0, or with 1 and a line that says what a reload would have met.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
import traceback
from typing import Any


class Refused(Exception):
    """What a reload would have met."""


def load(configuration: str) -> tuple[Any, Any]:
    """Load gunicorn's configuration and the app, as a master and its workers would.

    Args:
        configuration: the path of gunicorn.conf.py.

    Returns:
        The worker's class and the app.

    Raises:
        Refused: gunicorn would not start with it.
    """
    from gunicorn.app.wsgiapp import WSGIApplication  # type: ignore[import-untyped]

    sys.argv = ["gunicorn", "--check-config", "--config", configuration]
    what = "gunicorn.conf.py"
    try:
        gunicorn = WSGIApplication()
        worker = gunicorn.cfg.worker_class
        what = f"the app {gunicorn.cfg.wsgi_app}"
        gunicorn.chdir()
        return worker, gunicorn.wsgi()
    except SystemExit as error:
        raise Refused(f"{what} ends the process with status {error.code}") from error
    except Exception as error:
        traceback.print_exc(limit=-5)
        first = (str(error).strip().splitlines() or [""])[0]
        raise Refused(f"{what}: {type(error).__name__}: {first}") from error


async def live_once(worker: Any, app: Any, seconds: float) -> None:
    """Run the app's lifespan, start and end, as its worker would.

    Args:
        worker: the class of the worker, whose settings for uvicorn count.
        app: the app.
        seconds: how long each of the two may take.

    Raises:
        Refused: it did not start, or not in time.
    """
    from uvicorn.config import Config  # type: ignore[import-not-found]

    settings = {key: value for key, value in worker.CONFIG_KWARGS.items() if key == "lifespan"}
    config = Config(app, log_config=None, **settings)
    config.load()
    lifespan = config.lifespan_class(config)
    try:
        await asyncio.wait_for(lifespan.startup(), seconds)
        if lifespan.should_exit:
            raise Refused("the app does not start: its lifespan failed")
        await asyncio.wait_for(lifespan.shutdown(), seconds)
    except asyncio.TimeoutError as error:
        raise Refused(f"the app's lifespan takes longer than {seconds:g} seconds") from error


def give_up(seconds: float) -> None:
    """Refuse what hangs, an import for one, and show where.

    Args:
        seconds: how long it took.
    """
    traceback.print_stack(sys._current_frames()[threading.main_thread().ident or 0], limit=5)
    print(f"A reload is refused: the check takes longer than {seconds:g} seconds", file=sys.stderr, flush=True)
    os._exit(1)


def main() -> None:
    """Run the check."""
    configuration, seconds = sys.argv[1], float(sys.argv[2])
    whole = 2 * seconds + 5
    watch = threading.Timer(whole, give_up, [whole])
    watch.daemon = True
    watch.start()
    status = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        # The running workers' own files are not to be touched.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        try:
            worker, app = load(configuration)
            # A WSGI app has no lifespan.
            if hasattr(worker, "CONFIG_KWARGS"):
                asyncio.run(live_once(worker, app, seconds))
        except Refused as error:
            print(f"A reload is refused: {error}", file=sys.stderr)
            status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # The verdict does not wait for threads that the app has left behind.
    os._exit(status)


if __name__ == "__main__":
    main()
