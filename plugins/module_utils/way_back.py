"""A way back: the host undoes a change by itself, unless the controller confirms it by a new connection.

A mistake in a firewall, or in whom SSH lets in, locks out whoever could put it right. So the host counts down from
before the change on, over a restart too, and no connection that was open before counts as a sign of life.
"""

from __future__ import annotations

import dataclasses
import fcntl
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from ansible_collections.slipway.asgi.plugins.module_utils.generations import File, read_all, write
from ansible_collections.slipway.asgi.plugins.module_utils.host import run

UNITS = Path("/etc/systemd/system")

_SERVICE = """\
[Unit]
Description=Slipway: undo a change that the controller has not confirmed

[Service]
Type=exec
ExecStart=/bin/sh -c 'sleep {seconds}; if test -e {script}; then exec /bin/sh {script}; fi'
# What it takes to load a firewall, and to tell systemd what to reload.
CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_ADMIN
NoNewPrivileges=yes
UMask=0077
LimitCORE=0
ProtectSystem=strict
ReadWritePaths=/etc /var/lib/slipway {directories}
ProtectHome=yes
NoExecPaths=/ /tmp /var/tmp /etc /var/lib/slipway
ExecPaths=/usr /bin /sbin /lib -/lib64
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateMounts=yes
PrivateIPC=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
# A check of its configuration gives sshd no reason to fail for what it may not do here.
SystemCallErrorNumber=EPERM
IPAddressDeny=any

[Install]
WantedBy=multi-user.target
"""

# Whoever has the lock, and finds the script still there, decides. What is undone can be undone again from the start.
_SCRIPT = """\
set -e
exec 9>>{marker}
flock 9
test -e {script} || exit 0
{steps}
{apply}
rm --force {script} {marker}
systemctl --quiet --no-reload disable {unit}
rm --force {service}
systemctl daemon-reload
"""


@dataclasses.dataclass(frozen=True)
class WayBack:
    """The way back from a change of some files.

    Attributes:
        marker: the file that exists from before the change until it is confirmed or undone; its name is the change's.
        apply: the command by which the host takes the files up, whether they are there or not.
        seconds: how long the controller has to confirm, in seconds.
        paths: the files that may change.
    """

    marker: Path
    apply: Sequence[str]
    seconds: int
    paths: Sequence[Path]

    @property
    def _script(self) -> Path:
        # As long as it is there, the change is not confirmed.
        return self.marker.with_name(f"{self.marker.name}.way-back")

    @property
    def _service(self) -> Path:
        return UNITS / f"slipway-way-back-{self.marker.name}.service"

    def settle(self) -> None:
        """Undo what an earlier run has changed and nobody confirmed.

        Raises:
            Failed: it could not be undone.
        """
        if self._script.exists():
            self.go()
        self._clear()

    def prepare(self, changing: Iterable[Path], new: Iterable[Path]) -> None:
        """Let the time run: what changes from now on is undone unless it is confirmed.

        Args:
            changing: the files that will be replaced or removed, and come back as they are now.
            new: the files that will not be there again.

        Raises:
            Failed: there is no way back, so nothing may be changed.
        """
        steps = [f"rm --force {_quoted(path)}" for path in new]
        for path in changing:
            former = _former(path)
            (found,) = read_all(path.parent, [path.name])
            write(dataclasses.replace(found, path=str(former)), former)
            steps.append(f"! test -e {_quoted(former)} || mv --force {_quoted(former)} {_quoted(path)}")
        service, script = self._service, self._script
        directories = " ".join(sorted({f"-{path.parent}" for path in self.paths}))
        text = _SERVICE.format(seconds=self.seconds, script=script, directories=directories)
        write(File(str(service), text.encode()), service)
        text = _SCRIPT.format(
            marker=_quoted(self.marker),
            script=_quoted(script),
            steps="\n".join(steps),
            apply=shlex.join(self.apply),
            unit=service.name,
            service=_quoted(service),
        )
        write(File(str(script), text.encode(), 0o600), script)
        # This lets systemd read it, too.
        run(["systemctl", "--quiet", "enable", service.name])
        run(["systemctl", "start", service.name])

    def go(self) -> None:
        """Undo the change now.

        Raises:
            Failed: it could not be undone.
        """
        run(["systemctl", "stop", self._service.name])
        run(["/bin/sh", str(self._script)], what="the way back")

    def confirm(self) -> bool:
        """Let the change stay; False where it is undone already, or was confirmed before."""
        try:
            with self.marker.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._script.unlink()
        except FileNotFoundError:
            return False
        self._clear()
        self.marker.unlink()
        return True

    def _clear(self) -> None:
        if self._service.exists():
            run(["systemctl", "stop", self._service.name])
            run(["systemctl", "--quiet", "--no-reload", "disable", self._service.name])
            self._service.unlink()
            run(["systemctl", "daemon-reload"])
        for path in self.paths:
            _former(path).unlink(missing_ok=True)


def _former(path: Path) -> Path:
    # Hidden, so that no program reads it with its directory.
    return path.with_name(f".former-{path.name}")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
