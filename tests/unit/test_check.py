"""What the guarded reload asks before a SIGHUP: with real configurations, apps and lifespans, good and broken."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from test_worker import FILES, python

__all__ = ["python"]

GOOD = """
async def app(scope, receive, send):
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
"""
CONFIGURATION = 'wsgi_app = "site_app:app"\nworker_class = "slipway_worker.DrainingWorker"\n'


def check(python: Path, directory: Path, app: str, configuration: str = "", seconds: float = 2) -> tuple[int, str]:
    """Run the check on an app and a configuration, and return its status and what it said."""
    (directory / "site_app.py").write_text(app)
    (directory / "gunicorn.conf.py").write_text(CONFIGURATION + configuration)
    done = subprocess.run(
        [str(python), str(FILES / "slipway_check.py"), str(directory / "gunicorn.conf.py"), str(seconds)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(FILES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_good_app_passes(python: Path, tmp_path: Path) -> None:
    assert check(python, tmp_path, GOOD)[0] == 0


def test_an_app_without_a_lifespan_passes(python: Path, tmp_path: Path) -> None:
    assert check(python, tmp_path, "async def app(scope, receive, send):\n    assert scope['type'] == 'http'\n")[0] == 0


WSGI = 'worker_class = "slipway_thread_worker.NamedWorker"\n'


def test_an_app_for_wsgi(python: Path, tmp_path: Path) -> None:
    assert check(python, tmp_path, "def app(environ, start_response): ...\n", WSGI)[0] == 0
    status, output = check(python, tmp_path, "import no_such_module", WSGI)
    assert status == 1
    assert "No module named 'no_such_module'" in output


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("def nothing(): pass", "Failed to find attribute 'app'"),
        ("import sys; sys.exit(0)", "ends the process with status 0"),
        ("raise RuntimeError('no database')", "RuntimeError: no database"),
        (GOOD.replace("startup.complete", "startup.failed"), "its lifespan failed"),
        (GOOD.replace("    while", "    import asyncio; await asyncio.sleep(60)\n    while"), "longer than 2 seconds"),
    ],
)
def test_a_broken_app_is_refused(python: Path, tmp_path: Path, app: str, said: str) -> None:
    status, output = check(python, tmp_path, app)
    assert status == 1
    assert output.strip().splitlines()[-1].startswith("A reload is refused: ")
    assert said in output


def test_an_import_that_hangs_is_refused_and_shown(python: Path, tmp_path: Path) -> None:
    status, output = check(python, tmp_path, "import time\ntime.sleep(300)\n", seconds=0.1)
    assert status == 1
    assert "time.sleep(300)" in output
    assert output.strip().splitlines()[-1] == "A reload is refused: the check takes longer than 5.2 seconds"


def test_a_thread_that_stays_does_not_hold_the_verdict_up(python: Path, tmp_path: Path) -> None:
    thread = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
    assert check(python, tmp_path, GOOD + thread)[0] == 0


@pytest.mark.parametrize(
    "configuration", ["workers = (", "workers = 'many'", "worker_class = 'no_such.Worker'", "import sys; sys.exit(0)"]
)
def test_a_broken_configuration_is_refused(python: Path, tmp_path: Path, configuration: str) -> None:
    status, output = check(python, tmp_path, GOOD, configuration)
    assert status == 1
    assert output.strip().splitlines()[-1].startswith("A reload is refused: gunicorn.conf.py")


def test_the_running_servers_metrics_are_left_alone(python: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    app = GOOD + "import os, pathlib\npathlib.Path(os.environ['PROMETHEUS_MULTIPROC_DIR'], 'x.db').touch()\n"
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
    try:
        assert check(python, tmp_path, app)[0] == 0
    finally:
        del os.environ["PROMETHEUS_MULTIPROC_DIR"]
    assert list(metrics.iterdir()) == []
