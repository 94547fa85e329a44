"""Confine this process, then run a program in it: `python -I -S launcher.py FOLDER LIMITS RESULT`.

FOLDER holds program.py, LIMITS is JSON, RESULT the number of a descriptor for one line of JSON: the token from standard
input when the program ran to its end, or what went wrong. Uses nothing but the standard library: no site packages are
there.
"""

import builtins
import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
from typing import Any

_CALLS = {
    # name: (x86-64, arm64); a call that an architecture does not have is -1
    "socket": (41, 198),
    "socketpair": (53, 199),
    "fork": (57, -1),
    "vfork": (58, -1),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "truncate": (76, 45),
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, -1),
    "fchown": (93, 55),
    "lchown": (94, -1),
    "fchownat": (260, 54),
    "utime": (132, -1),
    "utimes": (235, -1),
    "futimesat": (261, -1),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "setrlimit": (160, 164),
    "setpriority": (141, 140),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, -1),
    "ioperm": (173, -1),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "quotactl": (179, 60),
    "acct": (163, 89),
    "personality": (135, 92),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
"""Refused with EPERM: a program that works out an answer needs none of them."""

# (number in AUDIT_ARCH, column above, clone, clone3, kill, tgkill, prlimit64)
_MACHINES = {"x86_64": (0xC000003E, 0, 56, 435, 62, 234, 302), "aarch64": (0xC00000B7, 1, 220, 435, 129, 131, 261)}

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _UNKNOWN, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16
_CLONE_THREAD = 0x10000

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_RULE_PATH_BENEATH = 1

_LIBC = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """The version of Landlock that the kernel has; 0 for none."""
    return max(0, int(_LIBC.syscall(_LANDLOCK_CREATE, 0, 0, 1)))


def supported() -> str:
    """What is missing here to confine a program; empty if nothing is."""
    if sys.platform != "linux":
        return f"it needs Linux, and this is {sys.platform}"
    if platform.machine() not in _MACHINES:
        return f"it knows the system calls of {' and '.join(_MACHINES)}, and this is {platform.machine()}"
    if not landlock_version():
        return "the kernel has no Landlock (Linux 5.13 or newer, with landlock among its security modules)"
    if _LIBC.prctl(21, 0, 0, 0, 0) < 0:
        return "the kernel has no seccomp"
    return ""


def _limit(limits: dict[str, Any]) -> None:
    seconds = int(limits["seconds"]) + 1
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def _confine_files(folder: str) -> None:
    version = landlock_version()
    rights = (1 << _RIGHTS_BY_VERSION.get(version, 16)) - 1
    network = 3 if version >= 4 else 0
    attributes = struct.pack("QQ", rights, network)[: 16 if version >= 4 else 8]
    rules = _checked(_LIBC.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0), "landlock")
    # the two prefixes differ in a virtual environment; libraries lie where the loader looks for them
    readable = {sys.base_prefix, sys.prefix, "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib"}
    readable |= {"/usr/share/zoneinfo", "/etc/ld.so.cache", "/dev/null", "/dev/urandom"}
    for path in readable:
        if os.path.exists(path):
            is_folder = os.path.isdir(path)
            _allow(rules, path, _READ_FILE | (_READ_FOLDER if is_folder else 0))
    _allow(rules, folder, rights & ~1)
    _checked(_LIBC.syscall(_LANDLOCK_RESTRICT, rules, 0), "landlock")
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = struct.pack("=Qi", rights, place)
    _checked(_LIBC.syscall(_LANDLOCK_ADD, rules, _RULE_PATH_BENEATH, rule, 0), "landlock")
    os.close(place)


def _confine_calls() -> None:
    machine, column, clone, clone3, kill, tgkill, prlimit = _MACHINES[platform.machine()]
    own = os.getpid()
    program = [
        _step(_LOAD, _MACHINE),
        _step(_EQUAL, machine, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
    ]
    if column == 0:  # the calls of x32 have another bit set, and would get past the numbers below
        program += [_step(_AT_LEAST, 0x40000000, 0, 1), _step(_RETURN, _REFUSE)]
    for numbers in _CALLS.values():
        if numbers[column] >= 0:
            program += [_step(_EQUAL, numbers[column], 0, 1), _step(_RETURN, _REFUSE)]
    # glibc falls back to clone, whose flags can be looked at
    program += [_step(_EQUAL, clone3, 0, 1), _step(_RETURN, _UNKNOWN)]
    program += _when(clone, [_step(_LOAD, _ARGUMENTS), _step(_ANY_BIT, _CLONE_THREAD, 1, 0), _step(_RETURN, _REFUSE)])
    for number in (kill, tgkill):
        program += _when(number, [_step(_LOAD, _ARGUMENTS), _step(_EQUAL, own, 1, 0), _step(_RETURN, _REFUSE)])
    limits = _ARGUMENTS + 16  # the new limits: a pointer that must be null
    program += _when(
        prlimit,
        [
            _step(_LOAD, limits),
            _step(_EQUAL, 0, 0, 2),
            _step(_LOAD, limits + 4),
            _step(_EQUAL, 0, 1, 0),
            _step(_RETURN, _REFUSE),
        ],
    )
    program.append(_step(_RETURN, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    _checked(_LIBC.prctl(_PR_SET_SECCOMP, 2, header, 0, 0), "seccomp")


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """An instruction of the packet filter; the jumps count the instructions to skip."""
    return struct.pack("HBBI", code, if_true, if_false, value & 0xFFFFFFFF)


def _when(number: int, steps: list[bytes]) -> list[bytes]:
    """Steps for one call; behind them the number is loaded again."""
    return [_step(_EQUAL, number, 0, len(steps) + 1), *steps, _step(_LOAD, _NUMBER)]


def _checked(value: int, what: str) -> int:
    if value < 0:
        raise OSError(ctypes.get_errno(), f"{what} refused")
    return int(value)


def main(folder: str, limits: str, result: int) -> None:
    """Read the program and the token, close the doors, run, and tell."""
    token = sys.stdin.readline().strip()
    with open(os.path.join(folder, "program.py"), encoding="utf-8") as file:
        source = file.read()
    os.chdir(folder)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _checked(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _limit(json.loads(limits))
    _confine_files(folder)
    _confine_calls()
    told = _run(source, token)
    os.write(result, json.dumps(told).encode())
    os._exit(0)  # what the program left to be done at the end is not done


def _run(source: str, token: str) -> dict[str, str]:
    """Run a program as a main module; the token if it came to its end, or the name and text of its error."""
    # kept from a program that changes them
    dumps = str
    space = {"__name__": "__main__", "__builtins__": builtins}
    try:
        exec(compile(source, "program.py", "exec"), space)  # noqa: S102  # what this process is for
    except MemoryError:
        return {"error": "MemoryError", "text": ""}
    except BaseException as error:  # SystemExit and KeyboardInterrupt are no way to pass
        try:
            text = dumps(error)[:300]
        except BaseException:  # an error of the program's own making
            text = ""
        return {"error": type(error).__name__, "text": text}
    return {"token": token}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
