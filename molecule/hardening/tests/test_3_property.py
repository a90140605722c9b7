"""Each set of variables is refused by name, or becomes a configuration that nginx and systemd take without a word, and
that hands an app each value byte for byte. There is no third outcome."""

from __future__ import annotations

import base64
import io
import json
import multiprocessing
import re
import subprocess
import zipfile
from collections.abc import Mapping
from itertools import batched
from pathlib import Path, PurePath
from typing import Any

import drawing
import judging
import pytest
from drawing import Drawn, Written
from fixtures import SOAK
from hosts import ROOT, aligned
from hypothesis import HealthCheck, given, settings
from rendering import Configuration, Variables, mistakes_of

# How many sets are drawn, and of how many of them an app is started, besides those that are written by hand.
DRAWN, STARTED = (1500, 60) if SOAK else (150, 6)
# The shares of the drawn sets that have to be taken and refused: with fewer, that half has shown nothing.
TAKEN, REFUSED = 1 / 3, 1 / 10
# How many configurations are judged at once.
BATCH = 50
PROGRAM = "/root/judging.zip"
UTILITIES = "ansible_collections/slipway/asgi/plugins/module_utils"

pytestmark = pytest.mark.only("debian-13")


class Judge:
    """What judges configurations on a host."""

    def __init__(self, host: Any) -> None:
        self.container = str(host.backend.get_hostname())
        self.release = host.check_output(". /etc/os-release && echo $VERSION_CODENAME")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as program:
            program.write(judging.__file__, "judging.py")
            # Without entries of their own, directories are no packages to Python.
            for directory in [*PurePath(UTILITIES).parents][-2::-1]:
                program.mkdir(str(directory))
            program.mkdir(UTILITIES)
            for path in (ROOT / "plugins/module_utils").glob("*.py"):
                program.write(path, f"{UTILITIES}/{path.name}")
        self._run(["sh", "-c", f"cat >{PROGRAM}"], packed.getvalue())

    def verdicts(self, configurations: list[dict[str, Any]]) -> list[dict[str, str]]:
        """What nginx and systemd-analyze say of each."""
        found: list[dict[str, str]] = self._ask("verdicts", configurations, "unshare", "--mount")
        return found

    def handed(self, apps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What each app's process is handed."""
        found: list[dict[str, Any]] = self._ask("handed", apps)
        return found

    def _ask(self, what: str, sent: Any, *wrapper: str) -> Any:
        command = [*wrapper, "env", f"PYTHONPATH={PROGRAM}", "python3", "-m", "judging", what]
        return json.loads(self._run(command, json.dumps(sent).encode()))

    def _run(self, command: list[str], given: bytes) -> bytes:
        command = ["docker", "exec", "-i", self.container, *command]
        done = subprocess.run(command, input=given, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout


class Sets:
    """The sets of variables that were tried, and what came of them.

    Attributes:
        judge: what judges them.
        taken: those that were taken on the controller, by their files.
        configurations: what these became, in the same order.
        rows: the table.
    """

    def __init__(self, judge: Judge, directory: Path) -> None:
        self.judge, self.directory = judge, directory
        self.tried = 0
        self.taken: dict[Path, Drawn | Written] = {}
        self.configurations: list[Configuration] = []
        self.rows: list[tuple[str, ...]] = [("what", "count", "refused", "taken", "")]
        drawing.lay_source(directory)

    def mistakes_of(self, variables: Drawn | Written) -> list[str]:
        """Try a set, and return what is wrong with it."""
        path = self.directory / f"{self.tried}.yml"
        path.write_text(variables.text)
        self.tried += 1
        messages = mistakes_of(path)
        if not messages:
            self.taken[path] = variables
        return messages

    def count(self, what: str, refused: int, taken: int, note: str = "") -> None:
        """Add a row to the table."""
        self.rows.append((what, str(refused + taken), str(refused), str(taken), note))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table."""
        terminalreporter.section("property")
        for line in aligned(self.rows):
            terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def sets(request: pytest.FixtureRequest, host: Any, tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """The sets of variables, which one test after the other brings further."""
    found = Sets(Judge(host), tmp_path_factory.mktemp("sets"))
    request.config.pluginmanager.register(found)
    return found


def test_each_class_by_hand_is_refused_by_name_or_taken(sets: Sets) -> None:
    for written in drawing.CLASSES:
        messages = sets.mistakes_of(written)
        assert len(messages) == bool(written.refused) and written.refused in "".join(messages), (written.name, messages)
    sets.count("classes by hand", len(drawing.CLASSES) - len(sets.taken), len(sets.taken))


def test_each_drawn_set_is_refused_by_name_or_taken(sets: Sets) -> None:
    before = len(sets.taken)
    refused = []

    @settings(
        max_examples=DRAWN,
        derandomize=not SOAK,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawing.sets())
    def try_one(drawn: Drawn) -> None:
        messages = sets.mistakes_of(drawn)
        assert not messages or drawn.are_named(messages), messages
        refused.extend(messages[:1])

    try_one()
    taken = len(sets.taken) - before
    sets.count("drawn sets", len(refused), taken)
    assert len(refused) + taken >= DRAWN
    assert taken >= TAKEN * DRAWN and len(refused) >= REFUSED * DRAWN


def test_what_is_taken_is_taken_by_nginx_and_systemd(sets: Sets) -> None:
    with multiprocessing.get_context("fork").Pool() as pool:
        sets.configurations = pool.starmap(render, [(path, sets.judge.release) for path in sets.taken])
    verdicts = [
        verdict
        for batch in batched(sets.configurations, BATCH, strict=False)
        for verdict in sets.judge.verdicts([configuration.sent() for configuration in batch])
    ]
    own = 0
    third = []
    for variables, verdict in zip(sets.taken.values(), verdicts, strict=True):
        # Only nginx knows its directives; the file that it names is called like the variable.
        if variables.has_directives and re.search(r"in /\S*/slipway_apps\.\S+\.nginx\.\w+:\d+", verdict["nginx"]):
            own += 1
        elif verdict["nginx"]:
            third.append((verdict["nginx"], variables.text))
        if verdict["systemd"]:
            third.append((verdict["systemd"], variables.text))
    sets.count("nginx -t", own, len(verdicts) - own, "refused: directives of a user's own, by name")
    sets.count("systemd-analyze verify", 0, len(verdicts), "without a word")
    assert verdicts and not third


def render(path: Path, release: str) -> Configuration:
    """What a host gets, in a process of its own."""
    return Variables(path).render(release)


def test_an_app_is_handed_each_value_byte_for_byte(sets: Sets) -> None:
    samples = [
        (app, *variables.values[app.name])
        for variables, configuration in zip(sets.taken.values(), sets.configurations, strict=True)
        for app in configuration.apps
        if any(variables.values.get(app.name, ()))
    ]
    written = [sample for sample in samples if sample[0].name == drawing.WRITTEN]
    drawn = sorted((sample for sample in samples if sample not in written), key=lambda sample: -size(*sample[1:]))
    samples = [*written, *drawn[:STARTED]]
    found = sets.judge.handed([app.sent() for app, _, _ in samples])
    for (app, environment, secrets), handed in zip(samples, found, strict=True):
        seen = dict(entry.split(b"=", 1) for entry in base64.b64decode(handed["environment"]).split(b"\0") if entry)
        for name, value in environment.items():
            assert seen.get(name.encode()) == value.encode(), (app.name, name)
        credentials = {name: base64.b64decode(content) for name, content in handed["credentials"].items()}
        assert credentials == {name: value.encode() for name, value in secrets.items()}, app.name
    values = sum(len(environment) + len(secrets) for _, environment, secrets in samples)
    told = f"{values} values of {sum(size(*sample[1:]) for sample in samples):,} bytes, byte for byte"
    sets.count("apps that were started", 0, len(samples), told)
    assert len(drawn) >= STARTED


def size(*mappings: Mapping[str, str]) -> int:
    """How many bytes values have."""
    return sum(len(value.encode()) for mapping in mappings for value in mapping.values())
