"""What tests of others' apps share: an app as its visitors meet it, and the table of what was shown."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import yaml
from hosts import ROOT, Site, aligned, look, play

# By the name of the app, the framework that it is written in.
FRAMEWORKS = {"ara": "django", "users": "litestar", "httpbin": "flask", "ledger": "fastapi"}
# Where prepare.yml makes them.
APPS = ROOT / ".cache/apps"
VISITORS = 4
# Seconds between a visitor's questions.
PACE = 0.02
_NUMBERS = itertools.count(1)
# An app that sets up logging of its own writes levels its own way.
_COMPLAINT = re.compile(r'"level": "(error|critical)"|\b(ERROR|CRITICAL|Traceback)\b')


@dataclasses.dataclass
class Row:
    """One row of the table.

    Attributes:
        app: the app, and the version of its framework.
        server: the server that it asks for.
        what: what was shown.
        note: what was counted.
        passed: whether it was.
    """

    app: str
    server: str
    what: str
    note: str = ""
    passed: bool = False


ROWS: list[Row] = []


def table() -> Iterator[str]:
    """The lines of the table."""
    verdicts = {True: "passed", False: "FAILED"}
    return aligned([(row.app, row.server, row.what, row.note or "-", verdicts[row.passed]) for row in ROWS])


class App:
    """One app on the host.

    Attributes:
        name: its name in the inventory.
        server: the server that its entry asks for.
        state: the directory that it may write to.
    """

    def __init__(self, host: Any, name: str, entry: Mapping[str, Any], directory: Path) -> None:
        """Find the app.

        Args:
            host: the host.
            name: its name in the inventory.
            entry: what the inventory says of it.
            directory: where the test may write.
        """
        self.host, self.name, self.directory = host, name, directory
        self.server = entry.get("server", "gunicorn")
        self.state = f"/var/lib/slipway/{name}"
        certificate = host.file(f"/etc/slipway/certificates/{name}/fullchain.pem").content_string
        self.site = Site(str(host.backend.get_hostname()), certificate, entry["domains"][0])
        self.version = host.check_output(
            "/srv/slipway/%s/live/release/.venv/bin/python -c "
            "'import importlib.metadata as all, sys; print(all.version(sys.argv[1]))' %s",
            name,
            FRAMEWORKS[name],
        )

    @contextlib.contextmanager
    def row(self, what: str) -> Iterator[Row]:
        """A new row, which has passed where the block comes to its end."""
        row = Row(f"{self.name}: {FRAMEWORKS[self.name]} {self.version}", self.server, what)
        ROWS.append(row)
        yield row
        row.passed = True

    # --- what a visitor does

    def client(self) -> httpx.Client:
        """A visitor who keeps cookies and connections, and has found the address in DNS."""

        def named(request: httpx.Request) -> None:
            request.extensions = {**request.extensions, "sni_hostname": self.site.domain}

        return httpx.Client(
            base_url=self.site.address,
            headers={"Host": self.site.domain},
            event_hooks={"request": [named]},
            verify=self.site.tls,
            trust_env=False,
            timeout=20,
        )

    @contextlib.contextmanager
    def visited(self, path: str, text: str) -> Iterator[Counter[str]]:
        """A light load until the end of the block: visitors who ask for a page again and again.

        Args:
            path: the page.
            text: what stands on it.

        Yields:
            What came of their questions, filled in at the end; "200" is the page, with the text.
        """
        over = threading.Event()

        def visit() -> Counter[str]:
            seen: Counter[str] = Counter()
            with self.client() as client:
                while not over.wait(PACE):
                    try:
                        answer = client.get(path)
                    except httpx.HTTPError as error:
                        seen[type(error).__name__] += 1
                        continue
                    whole = answer.status_code != 200 or text in answer.text
                    seen[str(answer.status_code) if whole else "another page"] += 1
            return seen

        total: Counter[str] = Counter()
        with ThreadPoolExecutor(VISITORS) as pool:
            visits = [pool.submit(visit) for _ in range(VISITORS)]
            try:
                yield total
            finally:
                over.set()
                for done in visits:
                    total += done.result()

    # --- what its operator does

    def play(self, playbook: str = "deploy", **options: Any) -> str:
        """Run a playbook for this app alone, with these options of it in this play only."""
        layer = self.directory / f"{self.name}-{next(_NUMBERS)}.yml"
        variables = {"slipway_app_overrides_test": {self.name: options}}
        layer.write_text(yaml.safe_dump({"test": {"hosts": {self.site.container: variables}}}))
        return play(self.site.container, "-e", f"app={self.name}", inventories=(layer,), playbook=playbook)

    def changed(self) -> dict[str, str]:
        """A source with one file more, as the option takes it."""
        source = self.directory / f"{self.name}-{next(_NUMBERS)}"
        shutil.copytree(APPS / self.name, source)
        (source / "CHANGES").write_text("This file is new.\n")
        return {"path": str(source)}

    # --- what is seen on the host

    def release(self) -> str:
        """The release that is live."""
        found: str = self.host.check_output(f"basename $(readlink /srv/slipway/{self.name}/live/release)")
        return found

    def is_quiet(self) -> None:
        """Insist that the live slot has been up since it started, and that no slot had anything to complain of."""
        unit = look(self.host, self.name)["unit"]
        shown = self.host.check_output(f"systemctl show --property=ActiveState --property=NRestarts {unit}")
        assert set(shown.split()) == {"ActiveState=active", "NRestarts=0"}, shown
        journal = f"journalctl --quiet --no-pager --output=cat --unit='slipway-{self.name}*'"
        assert self.host.check_output(f"{journal} --priority=err") == ""
        lines = self.host.check_output(journal).splitlines()
        assert lines
        assert [line for line in lines if _COMPLAINT.search(line)] == []
