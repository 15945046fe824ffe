"""Run a command that can change one folder, and reach nothing else of the machine.

    python sandbox.py FOLDER --closed COURSE -- COMMAND ...

The kernel of Linux refuses, not Python: Landlock closes the files, seccomp the calls
that reach other processes or the network, and rlimits bound time and memory. All of it
is inherited, and none can be taken back. Only the standard library is imported, and
this file is run by its path, so that one thread does it all before the command starts.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PROCESSOR_SECONDS = 1200
FILE_BYTES = 100_000_000
PRIVATE_BYTES = 4_000_000_000
OPEN_FILES = 512

# What Python, PyTorch and the C library read while they start and run.
READABLE = [
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/proc", "/sys/devices/system"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd"),
    *("/etc/group", "/etc/hosts", "/etc/fonts", "/etc/mime.types", "/etc/alternatives"),
    *("/dev/urandom", "/dev/random", "/dev/zero"),
]
KEPT = ("PATH", "LANG", "LC_", "TZ", "OMP_", "MKL_", "NBGRADER_EXECUTION", "JPY_")

# Landlock's rights (linux/landlock.h).
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
MAKE_CHAR, MAKE_BLOCK, TRUNCATE, IOCTL = 1 << 6, 1 << 11, 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many a version knows; from 5 on, 16

# System calls, by their numbers on x86-64 and on 64-bit ARM (-1: there is none).
REFUSED = {
    # other processes: their memory, limits and priority
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "kcmp": (312, 272)},
    **{"process_vm_writev": (311, 271), "process_madvise": (440, 440)},
    **{"pidfd_open": (434, 434), "pidfd_send_signal": (424, 424)},
    **{"pidfd_getfd": (438, 438), "migrate_pages": (256, 238)},
    **{"move_pages": (279, 239), "setpriority": (141, 140), "ioprio_set": (251, 30)},
    **{"sched_setattr": (314, 274), "shmget": (29, 194), "shmat": (30, 196)},
    **{"shmctl": (31, 195), "semget": (64, 190), "semctl": (66, 191)},
    **{"msgget": (68, 186), "msgctl": (71, 187), "mq_open": (240, 180)},
    **{"mq_unlink": (241, 181), "tkill": (200, 130), "fork": (57, -1)},
    "vfork": (58, -1),
    # what Landlock leaves open: the lengths, owners and attributes of files
    **{"truncate": (76, 45), "chown": (92, -1), "fchown": (93, 55)},
    **{"lchown": (94, -1), "fchownat": (260, 54), "setxattr": (188, 5)},
    **{"lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14)},
    **{"lremovexattr": (198, 15), "fremovexattr": (199, 16)},
    **{"setxattrat": (463, 463), "removexattrat": (466, 466)},
    "file_setattr": (469, 469),
    # the network, and other services of the machine
    **{"connect": (42, 203), "io_uring_setup": (425, 425), "bpf": (321, 280)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
    # ways around all of this
    **{"unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51)},
    **{"mount": (165, 40), "umount2": (166, 39), "move_mount": (429, 429)},
    **{"open_tree": (428, 428), "fsopen": (430, 430), "fsmount": (432, 432)},
    **{"pivot_root": (155, 41), "open_by_handle_at": (304, 265)},
    **{"userfaultfd": (323, 282), "perf_event_open": (298, 241)},
    **{"memfd_create": (319, 279), "memfd_secret": (447, 447)},
}
WITHOUT_EFFECT = {  # Python sets modes and times when it copies; ZeroMQ, a scheduler
    **{"chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53)},
    **{"fchmodat2": (452, 452), "utime": (132, -1), "utimes": (235, -1)},
    **{"futimesat": (261, -1), "utimensat": (280, 88)},
    **{"sched_setparam": (142, 118), "sched_setscheduler": (144, 119)},
}
BY_ARGUMENT = {  # allowed with some arguments
    **{"kill": (62, 129), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138)},
    **{"rt_tgsigqueueinfo": (297, 240), "prlimit64": (302, 261), "clone": (56, 220)},
    **{"clone3": (435, 435), "socket": (41, 198), "socketpair": (53, 199)},
    **{"sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269)},
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
THREAD, FAST_OPEN = 0x10000, 0x20000000  # CLONE_THREAD, MSG_FASTOPEN
INTERNET, UNIX, NETLINK, STREAM = 2, 1, 16, 1
ALLOWED, WITH_ERROR = 0x7FFF0000, 0x00050000

Program = list[tuple[int, int, int, int]]


class CannotClose(Exception):
    """This machine has not what the sandbox is made of."""


@cache
def c_library() -> ctypes.CDLL:
    """The C library of this process, which has `syscall` and `prctl`."""
    return ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: object) -> int:
    """A system call; an error of the kernel becomes an OSError."""
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    answer = c_library().syscall(ctypes.c_long(number), *given)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(answer)


def prctl(*arguments: object) -> None:
    """Set an attribute of this process, or raise OSError."""
    given = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    given += [ctypes.c_ulong(0)] * (5 - len(given))
    if c_library().prctl(*given) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def landlock_version() -> int:
    """Which Landlock the kernel of this machine has; 0 for none."""
    try:
        return call(444, 0, 0, 1)
    except OSError:
        return 0


def missing() -> str | None:
    """What this machine lacks for a sandbox, in words; None if it lacks nothing."""
    if sys.platform != "linux":
        return f"this is {platform.system()}, and the sandbox needs Linux"
    if platform.machine() not in MACHINES:
        return f"the sandbox knows no {platform.machine()} processors"
    if not landlock_version():
        return f"the kernel of this Linux ({platform.release()}) has no Landlock"
    return None


# The files


def close_files(writable: Iterable[Path], readable: Iterable[str | Path]) -> None:
    """Close all files but these to this process and to all that it starts."""
    version = landlock_version()
    handled = (1 << RIGHTS.get(version, 16)) - 1
    rules = call(444, ctypes.create_string_buffer(struct.pack("Q", handled)), 8, 0)
    for path in readable:
        allow(rules, path, handled & (EXECUTE | READ_FILE | READ_DIR))
    for path in writable:
        allow(rules, path, handled & ~(MAKE_CHAR | MAKE_BLOCK))
    call(446, rules, 0)
    os.close(rules)


def allow(rules: int, path: str | Path, rights: int) -> None:
    """Add a file, or a folder and all in it, to the rules; what is missing is not."""
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not Path(path).is_dir():
        rights &= OF_FILES
    rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, opened))
    call(445, rules, 1, rule, 0)
    os.close(opened)


# The calls


def load(offset: int) -> Program:
    """Take a word of the call: 0 its number, 4 the machine, 16 + 8 n argument n."""
    return [(0x20, 0, 0, offset)]


def end(answer: int) -> Program:
    """End the program with this answer."""
    return [(0x06, 0, 0, answer)]


def if_equal(value: int, then: Program) -> Program:
    """Go through `then` if the word is this value, and past it if not."""
    return [(0x15, 0, len(then), value), *then]


def if_any_bit(bits: int, then: Program) -> Program:
    """Go through `then` if the word has one of these bits."""
    return [(0x45, 0, len(then), bits), *then]


def filter_program(process: int) -> Program:
    """The filter that every system call of the process `process` goes through."""
    column, machine = MACHINES[platform.machine()]
    yes, no = end(ALLOWED), end(WITH_ERROR + errno.EPERM)
    own = load(16) + if_equal(process, yes) + no
    stream = load(24) + [(0x54, 0, 0, 0xF)]  # without SOCK_CLOEXEC and _NONBLOCK
    tcp = load(32) + if_equal(0, yes) + if_equal(6, yes)
    # ZeroMQ goes on without a list of interfaces if that is not supported.
    interfaces = if_equal(NETLINK, end(WITH_ERROR + errno.EOPNOTSUPP))
    if_stream = stream + if_equal(STREAM, tcp + no)
    special: dict[str, Program] = {
        **dict.fromkeys(("kill", "tgkill"), own),
        **dict.fromkeys(("rt_sigqueueinfo", "rt_tgsigqueueinfo"), own),
        "prlimit64": load(16) + if_equal(0, yes) + if_equal(process, yes) + no,
        "clone": load(16) + if_any_bit(THREAD, yes) + no,
        # The C library then falls back on clone.
        "clone3": end(WITH_ERROR + errno.ENOSYS),
        "socket": load(16) + if_equal(INTERNET, if_stream) + interfaces + no,
        "socketpair": load(16) + if_equal(UNIX, stream + if_equal(STREAM, yes)) + no,
        "sendto": load(40) + if_any_bit(FAST_OPEN, no) + yes,
        "sendmsg": load(32) + if_any_bit(FAST_OPEN, no) + yes,
        "sendmmsg": load(40) + if_any_bit(FAST_OPEN, no) + yes,
    }
    program = load(4) + [(0x15, 1, 0, machine), *no] + load(0)
    if not column:  # the calls of x32, which have other numbers
        program += [(0x35, 0, 1, 0x40000000), *no]
    for answer, calls in ((no, REFUSED), (end(WITH_ERROR), WITHOUT_EFFECT)):
        for numbers in calls.values():
            if numbers[column] >= 0:
                program += if_equal(numbers[column], answer)
    for name, then in special.items():
        program += if_equal(BY_ARGUMENT[name][column], then)
    return program + yes


def close_calls() -> None:
    """Refuse the system calls that reach beyond this process and its files."""
    program = filter_program(os.getpid())
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    kept = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(kept))
    prctl(22, 2, ctypes.create_string_buffer(header))  # PR_SET_SECCOMP, its filters


# The process


def drop_powers() -> None:
    """Give up all that root may do and others may not, for good."""
    prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
    if os.geteuid() != 0:
        return
    for power in range(64):
        try:
            prctl(24, power)  # PR_CAPBSET_DROP
        except OSError:
            break
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    call(126 if platform.machine() == "x86_64" else 91, header, bytes(24))  # capset


def limit() -> None:
    """Bound processor time, memory and files, for this process and for good."""
    import resource  # not on Windows

    for what, most in (
        (resource.RLIMIT_CPU, PROCESSOR_SECONDS),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_DATA, PRIVATE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(what, (most, most))


def environment(folder: Path) -> dict[str, str]:
    """The variables that the command gets: no passwords, and homes in the folder."""
    kept = {k: v for k, v in os.environ.items() if k.startswith(KEPT)}
    homes = ("HOME", "TMPDIR", "IPYTHONDIR", "MPLCONFIGDIR", "JUPYTER_CONFIG_DIR")
    return {
        **{"OMP_NUM_THREADS": "2", "MALLOC_ARENA_MAX": "4"},
        **kept,
        **dict.fromkeys((*homes, "JUPYTER_RUNTIME_DIR"), str(folder / "home")),
        **{"PYTHONPATH": str(folder / "packages"), "PYTHONDONTWRITEBYTECODE": "1"},
    }


def furnish(folder: Path) -> None:
    """Put what the command needs into the folder: a home, and this package."""
    package = Path(__file__).resolve().parents[1]
    (folder / "home").mkdir()
    (folder / "packages").mkdir()
    (folder / "packages" / package.name).symlink_to(package)


def close_all(folder: Path, closed: Path) -> None:
    """Close everything but the folder, and see that it holds."""
    if lack := missing():
        raise CannotClose(lack)
    package = Path(__file__).resolve().parents[1]
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    drop_powers()
    limit()
    close_files([folder, Path("/dev/null")], [*READABLE, *prefixes, package])
    close_calls()
    try:
        os.listdir(closed)
    except PermissionError:
        return
    raise CannotClose(f"{closed} lies in a folder that the sandbox needs to read")


def main(arguments: list[str]) -> None:
    """Close everything, then become the command."""
    folder, _, closed, _, *command = arguments
    own = Path(folder).resolve()
    try:
        close_all(own, Path(closed).resolve())
    except (CannotClose, OSError) as error:
        sys.exit(f"no sandbox: {error}")
    os.closerange(3, OPEN_FILES)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
