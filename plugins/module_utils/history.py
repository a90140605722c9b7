"""What was live on a host, with which configuration and since when: what a rollback goes back to."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.slipway.asgi.plugins.module_utils.generations import File, Generations, read_all, write
from ansible_collections.slipway.asgi.plugins.module_utils.host import Layout


@dataclasses.dataclass(frozen=True)
class Entry:
    """What was live once.

    Attributes:
        release: its id.
        configuration: the number of the configuration that it ran with.
        since: when it was first seen live, in seconds of the epoch.
    """

    release: str
    configuration: str
    since: int = dataclasses.field(default=0, compare=False)


class History:
    """The entries of one app, oldest first, in a file beside its releases.

    Args:
        layout: the app's paths.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._store = layout.configuration / "generations"

    def entries(self) -> list[Entry]:
        """Those of which the release and the configuration are both still on the host."""
        try:
            known = [Entry(**entry) for entry in json.loads(self.layout.history.read_bytes())]
            return [one for one in known if self.layout.is_complete(one.release) and self.files_of(one).is_dir()]
        except (FileNotFoundError, TypeError, ValueError):
            # Of garbage nothing can be known; the next run begins anew with what is live.
            return []

    def files_of(self, entry: Entry) -> Path:
        """The directory with the configuration of an entry."""
        return self._store / entry.configuration

    def now(self) -> Entry | None:
        """What is live, or None."""
        live = self.layout.live_slot()
        return self.held_by(live) if live else None

    def since(self) -> int | None:
        """When what is live was first seen so, in seconds of the epoch, or None where that is not known."""
        now = self.now()
        return next((entry.since for entry in reversed(self.entries()) if entry == now), None)

    def held_by(self, slot: str) -> Entry | None:
        """What a slot holds, as if it were live since now, or None."""
        release = self.layout.release_in(slot)
        generation = Generations(self._store, self.layout.configuration / slot).current()
        return Entry(release, generation.name, int(time.time())) if release and generation else None

    def before(self, release: str = "") -> Entry | None:
        """The last that is not what is live now; of this release, where one is named."""
        now = self.now()
        found = (entry for entry in reversed(self.entries()) if entry != now)
        return next((entry for entry in found if release in ("", entry.release)), None)

    def remember(self, reloaded: bool = False) -> None:
        """Note what is live, so that it can be gone back to once it no longer is.

        Args:
            reloaded: its configuration is the same server's new one, and takes the place of the one before.
        """
        now, entries = self.now(), self.entries()
        if now is None:
            return
        if entries and entries[-1].release == now.release and (reloaded or self._alike(entries[-1], now)):
            now = dataclasses.replace(now, since=entries.pop().since)
        if not entries or entries[-1] != now:
            self._write([*entries, now])

    def _alike(self, one: Entry, other: Entry) -> bool:
        """Whether two entries have the same configuration, as before and after a switch that only starts anew."""
        return one != other and read_all(self.files_of(one)) == read_all(self.files_of(other))

    def depth(self, entry: Entry) -> int:
        """How many entries came before the last time that this one was live."""
        entries = self.entries()
        return len(entries) - 1 - entries[::-1].index(entry)

    def cut(self, depth: int) -> None:
        """Keep so many entries, and drop what came after them: a rollback goes further back the next time."""
        self._write(self.entries()[:depth])

    def _write(self, entries: Sequence[Entry]) -> None:
        text = json.dumps([dataclasses.asdict(entry) for entry in entries])
        write(File("history", text.encode()), self.layout.history)
