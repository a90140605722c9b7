"""What tests that deploy under load share."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hosts import APP, DOMAIN, ROOT, Site, play
from load import Load, Report

# One for each row of the table: system, what was done, how many requests, what failed.
ROWS: list[tuple[str, str, str, str]] = []


@dataclasses.dataclass
class Deploys:
    """One host, what is deployed to it, and the load that watches."""

    host: Any
    site: Site
    directory: Path
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    version: int = 0

    def source(self, change: Callable[[Path], None] | None = None) -> Path:
        """A copy of the sample app with another version, and whatever else is changed in it."""
        self.version += 1
        target = self.directory / str(self.version)
        shutil.copytree(
            ROOT / "sample_app", target, ignore=shutil.ignore_patterns("dist", "state", ".*", "__pycache__")
        )
        about = target / "guestbook/about.py"
        about.write_text(about.read_text().replace('"1.0.0"', f'"1.0.{self.version}"'))
        if change:
            change(target)
        return target

    def deploy(self, playbook: str = "deploy", **options: Any) -> str:
        """Run a playbook with these options of the app on top of all that were given before."""
        self.options.update(options)
        layer = self.directory / "layer.yml"
        overrides = {"slipway_app_overrides_test": {APP: self.options}}
        layer.write_text(yaml.safe_dump({"test": {"hosts": {self.site.container: None}, "vars": overrides}}))
        return play(self.site.container, inventories=(layer,), playbook=playbook)

    def refused(self, **options: Any) -> str:
        """Deploy what must be refused, and return why it was; what was given before holds again."""
        before = dict(self.options)
        try:
            self.deploy(**options)
        except AssertionError as error:
            return str(error)
        finally:
            self.options = before
        raise AssertionError(f"was not refused: {options}")

    def load(self, **options: Any) -> Load:
        """A load on this host's site."""
        address = f"https://127.0.0.1:{self.site.port(443)}"
        return Load(address, self.site.certificate, DOMAIN, **options)

    def row(self, what: str, report: Report, least: int = 5000, releases: int = 1) -> None:
        """Note what a row counted, and insist that it counted enough."""
        system = self.site.container.rpartition("deploys-")[2]
        failed = ", ".join(f"{count} {kind}" for kind, count in sorted(report.failed.items())) or "0"
        ROWS.append((system, what, f"{report.requests} requests", f"failed: {failed}; {report.silence * 1000:.0f} ms"))
        assert report.requests >= least
        assert len({release for release, _ in report.served}) >= releases
