"""Disks with little room, laid over what a deploy writes to; what becomes of it stays, on the disk beneath."""

import contextlib
from collections.abc import Callable, Iterator

from deploying import HOME
from hosts import inside


@contextlib.contextmanager
def small_releases(container: str, size: str) -> Iterator[Callable[[str], object]]:
    """Lay a disk over the releases on which there is room for so much of a new one.

    Args:
        container: the host.
        size: the room, as mount writes sizes.

    Yields:
        What gives the disk another size.
    """

    def resize(size: str) -> object:
        return inside(container, f"mount -o remount,size={size} /mnt/small")

    layers = f"lowerdir={HOME}/releases,upperdir=/mnt/small/new,workdir=/mnt/small/work"
    inside(
        container,
        f"""
        mkdir -p /mnt/small /mnt/beneath
        mount -t tmpfs -o size={size} tmpfs /mnt/small
        mkdir /mnt/small/new /mnt/small/work
        mount --bind {HOME} /mnt/beneath
        mount --make-private /mnt/beneath
        mount -t overlay -o {layers} overlay {HOME}/releases
        """,
    )
    try:
        yield resize
    finally:
        inside(
            container,
            f"""
            live=$(basename $(readlink {HOME}/live/release))
            [ -e /mnt/beneath/releases/$live ] || cp -a {HOME}/releases/$live /mnt/beneath/releases/
            umount --lazy {HOME}/releases
            umount /mnt/beneath
            umount --lazy /mnt/small
            """,
        )


@contextlib.contextmanager
def small_disk(container: str, path: str, keep: str = "") -> Iterator[Callable[[int], object]]:
    """Lay a disk over a directory, with what that holds.

    Args:
        container: the host.
        path: the directory.
        keep: a directory in it, by its name, that stays where it is.

    Yields:
        What says how many KiB shall be free on it; at first there is room enough.
    """

    def free(kib: int) -> object:
        return inside(
            container,
            f"mount -o remount,size=$(($(df --output=used -k /mnt/small | tail -n 1) + {kib}))k /mnt/small",
        )

    parent, _, name = path.rpartition("/")
    # All that lies directly in a directory, but what is kept.
    found = f"find . -mindepth 1 -maxdepth 1 ! -name '{keep}'"
    inside(
        container,
        f"""
        mkdir -p /mnt/small /mnt/beneath
        mount -t tmpfs tmpfs /mnt/small
        mkdir /mnt/small/disk
        cd {path}
        chmod --reference=. /mnt/small/disk
        chown --reference=. /mnt/small/disk
        {found} -exec cp -a --target-directory=/mnt/small/disk {{}} +
        if [ -n '{keep}' ]; then
            mkdir /mnt/small/disk/{keep}
            mount --bind ./{keep} /mnt/small/disk/{keep}
        fi
        mount --bind {parent} /mnt/beneath
        mount --make-private /mnt/beneath
        mount --rbind /mnt/small/disk {path}
        """,
    )
    try:
        yield free
    finally:
        inside(
            container,
            f"""
            cd /mnt/beneath/{name}
            {found} -exec rm -rf {{}} +
            cd /mnt/small/disk
            {found} -exec cp -a --target-directory=/mnt/beneath/{name} {{}} +
            cd /
            umount --lazy {path}
            umount /mnt/beneath
            umount --lazy /mnt/small
            """,
        )
