"""The sandbox in which foreign code runs while a release is fetched and built, and how it gets a credential."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ansible_collections.slipway.asgi.plugins.module_utils.host import run

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
BUILD_USER = "slipway-build"
# What foreign code, such as a build backend or the user's own command, may do while a release is built.
SANDBOX = (
    f"User={BUILD_USER}",
    f"Group={BUILD_USER}",
    "UMask=0022",
    # What is live goes first. The kernel's own grouping may ignore the nice value, where systemd has no say.
    "CPUWeight=20",
    "Nice=10",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "ProtectProc=invisible",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectControlGroups=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "DevicePolicy=closed",
    "PrivateMounts=yes",
    "PrivateIPC=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "KeyringMode=private",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
    # What a build tries beyond that is refused, and not its end.
    "SystemCallErrorNumber=EPERM",
    "InaccessiblePaths=-/etc/slipway -/var/lib/slipway -/run/slipway",
)


def sandboxed(
    unit: str,
    command: Sequence[str],
    what: str,
    environment: Mapping[str, str],
    directory: Path = Path("/"),
    writable: Sequence[Path] = (),
    credentials: Mapping[str, str] | None = None,
) -> str:
    """Run a command to its end as the build user.

    Args:
        unit: the name of its unit, without the suffix.
        command: the program and its arguments.
        what: how the failure is introduced.
        environment: all of its environment.
        directory: where it starts.
        writable: the directories that it may write to.
        credentials: by name, what it finds as files in ``$CREDENTIALS_DIRECTORY``, and no other unit does.

    Returns:
        What it printed, both streams together.

    Raises:
        Failed: it ended with another status than 0.
    """
    properties = list(SANDBOX)
    if writable:
        properties.append(f"ReadWritePaths={' '.join(map(str, writable))}")
    with _handed_over(credentials or {}) as loaded:
        return run(
            [
                "systemd-run",
                "--quiet",
                "--wait",
                "--pipe",
                "--collect",
                f"--unit={unit}",
                # The journal would name the whole command.
                f"--description=Slipway: {' '.join(what.split())}",
                f"--working-directory={directory}",
                *(f"--property={text}" for text in [*properties, *loaded]),
                *(f"--setenv={name}={value}" for name, value in environment.items()),
                "--",
                # systemd would put the value of a ${variable} in its place, before a shell sees it.
                *(word.replace("$", "$$") for word in command),
            ],
            what,
        )


def end(unit: str) -> None:
    """Stop the command of a unit, should it still run."""
    subprocess.run(["systemctl", "--quiet", "stop", f"{unit}.service"], capture_output=True, check=False)


@contextlib.contextmanager
def _handed_over(credentials: Mapping[str, str]) -> Iterator[list[str]]:
    """The properties with which systemd takes credentials from this process's memory: they are on no disk, in no
    command line and no environment, and are gone when the process is, however it ends."""
    with contextlib.ExitStack() as stack:
        properties = []
        for name, value in credentials.items():
            memory = stack.enter_context(open(os.memfd_create(name), "wb", buffering=0))
            memory.write(value.encode())
            properties.append(f"LoadCredential={name}:/proc/{os.getpid()}/fd/{memory.fileno()}")
        yield properties
