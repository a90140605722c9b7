"""What someone tries who has taken over an app; whoever is let do it does no harm, and leaves nothing.

The same file runs in the app and, as a program whose argument is the scene as JSON, in units without a sandbox.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import json
import mmap
import os
import platform
import pwd
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.process_vm_readv.restype = ctypes.c_ssize_t
LIBC.ptrace.restype = LIBC.syscall.restype = ctypes.c_long
LIBC.shmat.restype = ctypes.c_void_p
# Calls for which libc has no function, by machine.
SYSCALLS = {
    "x86_64": {"init_module": 175, "reboot": 169, "perf_event_open": 298, "bpf": 321},
    "aarch64": {"init_module": 105, "reboot": 142, "perf_event_open": 241, "bpf": 280},
}[platform.machine()]
# As the kernel's headers name them.
ADDR_NO_RANDOMIZE = 0x0040000
ADJ_STATUS = 0x10
BPF_PROG_LOAD, BPF_SOCKET_FILTER = 5, 1
CAPABILITIES_VERSION, CAP_DAC_OVERRIDE = 0x20080522, 1
CLONE_NEWUSER = 0x10000000
PTRACE_SEIZE = 0x4206
SYSLOG_READ_ALL = 3
# Seconds after which an address that does not answer counts as out of reach, and an attempt as stuck.
SILENCE_SECONDS = 2
STUCK_SECONDS = 20


@dataclasses.dataclass(frozen=True)
class Scene:
    """Where the app is, and what is around it.

    Attributes:
        app: the app that was taken over.
        slot: its live slot.
        master: the pid of its server.
        victim: another app.
        victim_slot: that one's live slot.
        victim_master: the pid of its server.
        victim_address: an address in the memory of that.
        setuid_program: a program that belongs to root, is setuid, and prints its effective user.
        left: the name of a file that somebody else has left in /tmp and in /dev/shm, readable by all.
        shared_memory: the key of memory that somebody else shares with all.
        metadata: the addresses of the stand-in for a metadata service.
        elsewhere: the address of the stand-in for another machine.
        port: the port on which both answer.
    """

    app: str
    slot: str
    master: int
    victim: str
    victim_slot: str
    victim_master: int
    victim_address: int
    setuid_program: str
    left: str
    shared_memory: int
    metadata: list[str]
    elsewhere: str
    port: int

    @property
    def release(self) -> Path:
        """The release that runs."""
        return Path("/srv/slipway", self.app, "slots", self.slot, "release")

    @property
    def state(self) -> Path:
        """The directory that the app may write to."""
        return Path("/var/lib/slipway", self.app)

    @property
    def writable(self) -> list[Path]:
        """Whatever the app may be able to write to."""
        runtime = Path("/run/slipway", f"{self.app}-{self.slot}")
        return [self.state, runtime, Path(tempfile.gettempdir()), Path("/dev", "shm")]


Attempt = Callable[[Scene], str | None]
# In the order of the table. Each raises OSError where it is denied, and may say what it got where it is not.
ATTEMPTS: list[Attempt] = []


def attempt(function: Attempt) -> Attempt:
    """Make an attempt one of all; the first line of its docstring is what the table calls it."""
    ATTEMPTS.append(function)
    return function


# --- what attempts are made of


def _read(path: Path | str, length: int = 16) -> None:
    """Read the beginning of a file that is not empty."""
    with open(path, "rb") as stream:
        if not stream.read(length):
            raise OSError(errno.ENODATA, "nothing to read")


def _may_write(path: Path | str) -> None:
    """Open a file that is there for writing, and write nothing."""
    os.close(os.open(path, os.O_WRONLY))


def _leave_a_file(directory: Path | str) -> None:
    """Make a file in a directory, and remove it."""
    path = Path(directory, "slipway-attempt")
    path.touch(exist_ok=False)
    path.unlink()


def _call(name: str, *arguments: object) -> int:
    """Call a function of libc, or a system call that it has no function for."""
    known = name in SYSCALLS
    result: int = LIBC.syscall(SYSCALLS[name], *arguments) if known else getattr(LIBC, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _nonsense(name: str, *arguments: object) -> str:
    """Make a call that makes no sense: who may make it hears what is wrong with it, and nobody else does."""
    try:
        _call(name, *arguments)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise
        return f"let in, {errno.errorcode[error.errno or 0]}"
    return "let in"


def _answers(address: str, port: int) -> None:
    """Ask for a page and get an answer."""
    with socket.create_connection((address, port), SILENCE_SECONDS) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        if not connection.recv(16).startswith(b"HTTP/1."):
            raise ConnectionError("no answer")


@contextlib.contextmanager
def _copy(source: str, directory: Path) -> Iterator[Path]:
    """A copy of a program or a library, for as long as it is needed."""
    path = directory / "slipway-attempt"
    try:
        shutil.copyfile(source, path)
        path.chmod(0o700)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _anywhere(directories: list[Path], function: Callable[[Path], object]) -> str:
    """Do something in the first directory where it can be done."""
    denied = OSError(errno.ENOENT, "nowhere to try it")
    for directory in directories:
        try:
            function(directory)
        except OSError as error:
            denied = error
        else:
            return f"in {directory}"
    raise denied


# --- another app


@attempt
def stored_secret(scene: Scene) -> None:
    """Read another app's secret where it is stored."""
    _read(f"/etc/slipway/{scene.victim}/{scene.victim_slot}/secrets/session_key")


@attempt
def credential(scene: Scene) -> None:
    """Read another app's secret where systemd hands it over."""
    _read(f"/run/credentials/slipway-{scene.victim}@{scene.victim_slot}.service/session_key")


@attempt
def environment_file(scene: Scene) -> None:
    """Read another app's environment where it is stored."""
    _read(f"/etc/slipway/{scene.victim}/{scene.victim_slot}/environment")


@attempt
def environment(scene: Scene) -> None:
    """Read another app's environment from its process."""
    _read(f"/proc/{scene.victim_master}/environ")


@attempt
def command_line(scene: Scene) -> None:
    """Read another app's command line."""
    _read(f"/proc/{scene.victim_master}/cmdline")


@attempt
def code(scene: Scene) -> None:
    """Read another app's code."""
    _read(f"/srv/slipway/{scene.victim}/slots/{scene.victim_slot}/release/src/pyproject.toml")


@attempt
def code_replaced(scene: Scene) -> None:
    """Make another release of another app live."""
    _leave_a_file(f"/srv/slipway/{scene.victim}")


@attempt
def data(scene: Scene) -> None:
    """Read another app's data."""
    _read(f"/var/lib/slipway/{scene.victim}/guestbook.sqlite3")


@attempt
def data_changed(scene: Scene) -> None:
    """Change another app's data."""
    _leave_a_file(f"/var/lib/slipway/{scene.victim}")


@attempt
def runtime_directory(scene: Scene) -> None:
    """Write to another app's runtime directory."""
    _leave_a_file(f"/run/slipway/{scene.victim}-{scene.victim_slot}")


@attempt
def app_socket(scene: Scene) -> None:
    """Ask another app over its socket, past nginx."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"/run/slipway/{scene.victim}-{scene.victim_slot}.sock")


@attempt
def memory(scene: Scene) -> None:
    """Read another app's memory through /proc."""
    handle = os.open(f"/proc/{scene.victim_master}/mem", os.O_RDONLY)
    os.pread(handle, 16, scene.victim_address)


@attempt
def memory_by_call(scene: Scene) -> None:
    """Read another app's memory by process_vm_readv."""
    buffer = ctypes.create_string_buffer(16)
    vector = ctypes.c_void_p * 2
    here, there = vector(ctypes.addressof(buffer), 16), vector(scene.victim_address, 16)
    none, one = ctypes.c_ulong(0), ctypes.c_ulong(1)
    _call("process_vm_readv", scene.victim_master, here, one, there, one, none)


@attempt
def traced(scene: Scene) -> None:
    """Trace another app's process."""
    _call("ptrace", PTRACE_SEIZE, scene.victim_master, None, None)


@attempt
def open_files(scene: Scene) -> None:
    """See what another app has open."""
    os.listdir(f"/proc/{scene.victim_master}/fd")


@attempt
def signalled(scene: Scene) -> None:
    """Send another app's process a signal."""
    os.kill(scene.victim_master, 0)


@attempt
def other_user(scene: Scene) -> None:
    """Become another app's user."""
    os.setuid(pwd.getpwnam(f"slipway-{scene.victim}").pw_uid)


@attempt
def processes(_scene: Scene) -> str:
    """See processes of others."""
    pids = [pid for pid in os.listdir("/proc") if pid.isdigit()]
    others = sum(os.stat(f"/proc/{pid}").st_uid != os.getuid() for pid in pids)
    if not others:
        raise PermissionError("sees none")
    return f"sees {others}"


@attempt
def left_in_tmp(scene: Scene) -> None:
    """Read what another has left in /tmp."""
    _read(Path(tempfile.gettempdir(), scene.left))


@attempt
def left_in_shared_memory(scene: Scene) -> None:
    """Read what another has left in /dev/shm."""
    _read(Path("/dev", "shm", scene.left))


@attempt
def shared_memory(scene: Scene) -> None:
    """Attach memory that another shares."""
    segment = _call("shmget", scene.shared_memory, ctypes.c_size_t(0), 0)
    if LIBC.shmat(segment, None, 0) == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# --- itself, after a restart


@attempt
def own_code(scene: Scene) -> None:
    """Write to its own code."""
    _may_write(scene.release / "src/main.py")


@attempt
def own_packages(scene: Scene) -> None:
    """Add a package to its own virtual environment."""
    _leave_a_file(next(scene.release.glob(".venv/lib/python*/site-packages")))


@attempt
def own_release(scene: Scene) -> None:
    """Make another release of its own live."""
    _leave_a_file(f"/srv/slipway/{scene.app}")


@attempt
def own_settings(scene: Scene) -> None:
    """Write to its server's settings."""
    _may_write(f"/etc/slipway/{scene.app}/{scene.slot}/gunicorn.conf.py")


@attempt
def own_unit(scene: Scene) -> None:
    """Write to its own unit."""
    _may_write(f"/etc/systemd/system/slipway-{scene.app}@{scene.slot}.service")


@attempt
def own_process(scene: Scene) -> None:
    """Trace the server that it is a worker of."""
    _call("ptrace", PTRACE_SEIZE, scene.master, None, None)


# --- the machine's files


@attempt
def etc(_scene: Scene) -> None:
    """Write to /etc."""
    _leave_a_file("/etc")


@attempt
def cron(_scene: Scene) -> None:
    """Add a job in /etc/cron.d."""
    _leave_a_file("/etc/cron.d")


@attempt
def crontab(_scene: Scene) -> None:
    """Add a crontab in /var/spool/cron."""
    _leave_a_file("/var/spool/cron/crontabs")


@attempt
def unit(_scene: Scene) -> None:
    """Add a unit in /etc/systemd/system."""
    _leave_a_file("/etc/systemd/system")


@attempt
def runtime_unit(_scene: Scene) -> None:
    """Add a unit in /run/systemd/system."""
    _leave_a_file("/run/systemd/system")


@attempt
def unit_by_dbus(_scene: Scene) -> None:
    """Have systemd start a unit, over D-Bus."""
    library = ctypes.CDLL("libsystemd.so.0")
    bus = ctypes.c_void_p()
    result = library.sd_bus_open_system(ctypes.byref(bus))
    if result >= 0:
        result = library.sd_bus_call_method(
            bus,
            b"org.freedesktop.systemd1",
            b"/org/freedesktop/systemd1",
            b"org.freedesktop.systemd1.Manager",
            b"StartTransientUnit",
            None,
            None,
            b"ssa(sv)a(sa(sv))",
            *(b"slipway-attempt.service", b"fail"),
            *(1, b"ExecStart", b"a(sasb)", 1, b"/bin/true", 1, b"/bin/true", 0),
            0,
        )
    if result < 0:
        raise OSError(-result, os.strerror(-result))


@attempt
def program(_scene: Scene) -> None:
    """Add a program in /usr/local/bin."""
    _leave_a_file("/usr/local/bin")


@attempt
def installer(_scene: Scene) -> None:
    """Write to what installs packages, in /opt/slipway."""
    _leave_a_file("/opt/slipway")


@attempt
def front(_scene: Scene) -> None:
    """Write to nginx's configuration."""
    _leave_a_file("/etc/nginx/conf.d")


@attempt
def front_log(_scene: Scene) -> None:
    """Write to nginx's logs."""
    _leave_a_file("/var/log/nginx")


@attempt
def front_requests(_scene: Scene) -> None:
    """Say in nginx's place what was asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.connect("/run/systemd/journal.requests/dev-log")


@attempt
def passwords(_scene: Scene) -> None:
    """Read /etc/shadow."""
    _read("/etc/shadow")


@attempt
def certificate_key(scene: Scene) -> None:
    """Read the private key of its own certificate."""
    _read(f"/etc/slipway/certificates/{scene.app}/privkey.pem")


@attempt
def ssh_key(_scene: Scene) -> None:
    """Read the machine's SSH key."""
    _read("/etc/ssh/ssh_host_ed25519_key")


@attempt
def home_of_root(_scene: Scene) -> None:
    """See what is in root's home."""
    os.listdir("/root")


@attempt
def homes(_scene: Scene) -> None:
    """See what is in /home."""
    os.listdir("/home")


@attempt
def journal(_scene: Scene) -> None:
    """Read the journal."""
    found = [*Path("/var/log/journal").glob("*/*.journal"), *Path("/run/log/journal").glob("*/*.journal")]
    if not found:
        raise PermissionError("sees none")
    _read(found[0])


@attempt
def kernel_log(_scene: Scene) -> None:
    """Read the kernel's log."""
    buffer = ctypes.create_string_buffer(4096)
    _call("klogctl", SYSLOG_READ_ALL, buffer, len(buffer))


@attempt
def sysctl(_scene: Scene) -> None:
    """Change a setting of the kernel in /proc/sys."""
    _may_write("/proc/sys/net/ipv4/ip_forward")


@attempt
def cgroup(_scene: Scene) -> None:
    """Leave its cgroup, and the limits that hold in it."""
    _may_write("/sys/fs/cgroup/cgroup.procs")


# --- privileges


@attempt
def root(_scene: Scene) -> None:
    """Become root."""
    os.setuid(0)


@attempt
def setuid_program(scene: Scene) -> None:
    """Become root by a setuid program."""
    said = subprocess.run([scene.setuid_program, "-u"], capture_output=True, check=True, text=True).stdout.strip()
    if said != "0":
        raise PermissionError(f"it runs as {said}")


@attempt
def setuid_bit(scene: Scene) -> None:
    """Make a setuid program of its own."""
    with _copy("/usr/bin/true", scene.state) as path:
        path.chmod(0o4755)
        if not path.stat().st_mode & stat.S_ISUID:
            raise PermissionError("the bit is not set")


@attempt
def capability(_scene: Scene) -> None:
    """Take a capability."""
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)()
    _call("capget", header, effective_permitted_inheritable)
    for index in (0, 1):
        effective_permitted_inheritable[index] |= 1 << CAP_DAC_OVERRIDE
    _call("capset", header, effective_permitted_inheritable)


@attempt
def user_namespace(_scene: Scene) -> None:
    """Become root in a user namespace of its own."""
    _call("unshare", CLONE_NEWUSER)


@attempt
def namespace_of_init(_scene: Scene) -> None:
    """Enter the machine's own mount namespace."""
    _call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0)


@attempt
def mounted(scene: Scene) -> None:
    """Mount a file system."""
    directory = tempfile.mkdtemp(dir=scene.state)
    try:
        _call("mount", b"none", directory.encode(), b"tmpfs", ctypes.c_ulong(0), None)
        _call("umount", directory.encode())
    finally:
        os.rmdir(directory)


@attempt
def changed_root(_scene: Scene) -> None:
    """Change its root directory."""
    os.chroot("/")


@attempt
def device(scene: Scene) -> None:
    """Make a device of its own."""
    path = scene.state / "slipway-attempt"
    os.mknod(path, stat.S_IFCHR | 0o600, os.stat(os.devnull).st_rdev)
    path.unlink()


@attempt
def hostname(_scene: Scene) -> None:
    """Set the machine's name."""
    socket.sethostname(socket.gethostname())


@attempt
def clock(_scene: Scene) -> None:
    """Set the machine's clock."""
    # struct timex: what to set comes first, and nothing else is changed from what was read.
    state = ctypes.create_string_buffer(256)
    _call("adjtimex", state)
    struct.pack_into("I", state, 0, ADJ_STATUS)
    _call("adjtimex", state)


@attempt
def reboot(_scene: Scene) -> str:
    """Reboot the machine."""
    # Without its magic numbers nobody's call does anything.
    return _nonsense("reboot", 0, 0, 0, None)


# --- the kernel


@attempt
def module(_scene: Scene) -> str:
    """Load a module into the kernel."""
    return _nonsense("init_module", b"no module", ctypes.c_ulong(9), b"")


@attempt
def module_at_boot(_scene: Scene) -> None:
    """Have a module loaded at the next boot."""
    _leave_a_file("/etc/modules-load.d")


@attempt
def kernel_program(_scene: Scene) -> None:
    """Load a BPF program into the kernel."""
    # r0 = 0; exit
    instructions = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0), 16)
    licence = ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(instructions), ctypes.addressof(licence)
    attributes = struct.pack("=IIQQIIQII", BPF_SOCKET_FILTER, 2, *addresses, 0, 0, 0, 0, 0)
    _call("bpf", BPF_PROG_LOAD, attributes, len(attributes))


@attempt
def performance_counters(_scene: Scene) -> None:
    """Read performance counters."""
    software, exclude_kernel_and_hypervisor = 1, 1 << 5 | 1 << 6
    attributes = struct.pack("=IIQQQQQIIQ", software, 64, 0, 0, 0, 0, exclude_kernel_and_hypervisor, 0, 0, 0)
    _call("perf_event_open", attributes, 0, -1, -1, ctypes.c_ulong(0))


@attempt
def personality(_scene: Scene) -> None:
    """Switch the randomising of addresses off."""
    _call("personality", ctypes.c_ulong(ADDR_NO_RANDOMIZE))


# --- code that was not deployed


@attempt
def written_and_run_memory(_scene: Scene) -> None:
    """Have memory that is both written and run."""
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


@attempt
def written_then_run_memory(_scene: Scene) -> None:
    """Have memory run that was written."""
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    _call("mprotect", ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_EXEC)


@attempt
def written_program(scene: Scene) -> str:
    """Run a program that it has written, wherever it can."""

    def run(directory: Path) -> None:
        with _copy("/usr/bin/true", directory) as path:
            subprocess.run([path], check=True)

    return _anywhere(scene.writable, run)


@attempt
def written_library(scene: Scene) -> str:
    """Load a library that it has written, wherever it can."""
    import _ctypes

    def load(directory: Path) -> None:
        with _copy(_ctypes.__file__, directory) as path:
            ctypes.CDLL(str(path))

    return _anywhere(scene.writable, load)


# --- the network


@attempt
def raw_socket(_scene: Scene) -> None:
    """Send packets of its own making."""
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@attempt
def packet_socket(_scene: Scene) -> None:
    """Listen to all packets."""
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)).close()


@attempt
def routes(_scene: Scene) -> None:
    """Talk to the kernel about addresses, routes and the firewall."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as netlink:
        netlink.bind((0, 0))


@attempt
def low_port(_scene: Scene) -> None:
    """Listen on a port below 1024."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 23))


@attempt
def metadata(scene: Scene) -> None:
    """Reach a metadata service."""
    _answers(scene.metadata[0], scene.port)


@attempt
def metadata_6(scene: Scene) -> None:
    """Reach a metadata service over IPv6."""
    _answers(scene.metadata[1], scene.port)


@attempt
def elsewhere(scene: Scene) -> None:
    """Reach another machine."""
    _answers(scene.elsewhere, scene.port)


# ---


def called(function: Attempt) -> str:
    """What the table calls an attempt."""
    return (function.__doc__ or "").partition("\n")[0].rstrip(".")


def _said_by(function: Attempt, scene: Scene) -> dict[str, str]:
    try:
        return {"got": function(scene) or "done"}
    except OSError as error:
        return {"denied": errno.errorcode.get(error.errno or 0) or str(error)}
    except Exception:
        return {"error": traceback.format_exc()}


def _try(function: Attempt, scene: Scene) -> dict[str, str]:
    """Make an attempt in a process of its own, which the kernel may kill."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(STUCK_SECONDS)
        os.write(writing, json.dumps(_said_by(function, scene)).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as stream:
        said = stream.read()
    _, status = os.waitpid(pid, 0)
    if said:
        result: dict[str, str] = json.loads(said)
        return result
    # That is how the kernel ends a process that makes a system call which it may not make.
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS
    return {"denied": "SIGSYS"} if killed else {"error": f"ended with status {status}"}


def try_all(scene: Scene) -> dict[str, dict[str, str]]:
    """Make all attempts.

    Returns:
        What came of each, by what the table calls it: ``got``, ``denied`` or ``error``, with what there is to say.
    """
    return {called(function): _try(function, scene) for function in ATTEMPTS}


if __name__ == "__main__":
    print(json.dumps(try_all(Scene(**json.loads(sys.argv[1])))))
