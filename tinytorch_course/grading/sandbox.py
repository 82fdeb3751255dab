"""What a process may still do once it runs code that nobody can trust.

A process enters by itself, before it imports that code, and cannot leave: the kernel refuses what is not allowed, also
to Python code that reaches into Python itself. On Linux these are

- resource limits (setrlimit): seconds of CPU, address space, the size of a file, open files, no core dumps;
- Landlock: which files it can read, and one folder that it can write to; no TCP, no signals to others;
- seccomp, through libseccomp where it is installed: no sockets, no processes, no signals, none of the system calls
  that reach into other processes or leave something behind in the kernel;
- another user where the process is root's, and no capabilities.

Elsewhere there are resource limits alone. `enter` returns what cannot be limited on a machine.
"""

import contextlib
import ctypes
import errno
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

NOBODY = 65534  # the user, and the group, that owns nothing
OPEN_FILES = 256
SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime",
    "/dev/urandom", "/dev/zero",
)  # fmt: skip
ITSELF = "/proc/self"  # what the kernel says of the process that asks


@dataclass(frozen=True)
class Limits:
    """seconds: of CPU; memory: bytes of address space; file: bytes of one file. See `enter` for the rest.

    readable: paths of which everything below can be read; listed: folders of which the names can be read.
    nobody: whether root becomes another user, if that one gets to all of them.
    """

    seconds: int
    memory: int
    file: int
    readable: tuple
    listed: tuple = ()
    nobody: bool = True


def enter(limits, scratch):
    """Give up, for this process and for ever, all that is not needed. scratch: the folder that it can write to.

    Returns what could not be limited, in words. Needs a process of one thread.
    """
    _limit_resources(limits)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # if memory gets short, this process goes first
    missing = []
    _give_up_rights(limits, scratch)
    if not _restrict_files(limits, scratch):
        missing.append("reading and writing files")
    if not _restrict_calls():
        missing.append("the network, and starting processes")
    return missing


def _limit_resources(limits):
    for kind, value in (
        (resource.RLIMIT_CPU, limits.seconds),
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        most = resource.getrlimit(kind)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        later = 1 if kind == resource.RLIMIT_CPU else 0  # a signal first, and then the end
        with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of the address space
            resource.setrlimit(kind, (value, value + later))


# ---- another user


def _give_up_rights(limits, scratch):
    """Stop being root, or at least being able to do what only root can."""
    if limits.nobody and os.geteuid() == 0 and nobody_can_read(limits.readable, scratch):
        os.chown(scratch, NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if sys.platform == "linux":
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        ctypes.CDLL(None).capset(header, none)


def nobody_can_read(paths, scratch="/"):
    """Whether a user without rights could read the paths, and get to the scratch folder.

    Not so, for example, with a Python in root's own folder.
    """
    there = [Path(path).resolve() for path in paths if Path(path).exists()]
    open_ = all(path.stat().st_mode & (needed := 0o005 if path.is_dir() else 0o004) == needed for path in there)
    return open_ and all(up.stat().st_mode & 0o001 for path in (*there, Path(scratch).resolve()) for up in path.parents)


# ---- files: Landlock (https://docs.kernel.org/userspace-api/landlock.html)

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # numbers of the system calls, on every architecture
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
MAKE_SPECIAL = 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11  # devices, sockets, pipes
ALL_RIGHTS = {1: 1 << 13, 2: 1 << 14, 3: 1 << 15, 4: 1 << 15, 5: 1 << 16}  # by version: one more than all of them
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | 1 << 15  # those that a rule for a file may name
PATH_BENEATH = 1


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _restrict_files(limits, scratch):
    """Allow reading below some paths and writing below one, nothing else. Returns whether the kernel can do so."""
    version = _call(CREATE_RULESET, None, 0, 1) if sys.platform == "linux" else -1
    if version < 1:
        return False
    every = ALL_RIGHTS[min(version, 5)] - 1
    ruleset = _Ruleset(every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    rules = _call(CREATE_RULESET, ctypes.byref(ruleset), 8 if version < 4 else 16 if version < 6 else 24, 0)
    if rules < 0:
        return False
    _allow(rules, "/dev/null", READ_FILE | WRITE_FILE)
    _allow(rules, scratch, every & ~MAKE_SPECIAL & ~EXECUTE)
    for path in limits.readable:
        _allow(rules, path, EXECUTE | READ_FILE | READ_DIR)
    for path in limits.listed:
        _allow(rules, path, READ_DIR)
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    restricted = _call(RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return restricted


def _allow(rules, path, rights):
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this machine
    rights = rights if os.path.isdir(path) else rights & OF_FILES
    _call(ADD_RULE, rules, PATH_BENEATH, ctypes.byref(_Beneath(rights, parent)), 0)
    os.close(parent)


def _call(number, *arguments):
    wide = [ctypes.c_long(x) if isinstance(x, int) else x for x in arguments]
    return ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *wide)


def without(readable, closed):
    """Paths that together hold all below `readable`, but nothing of `closed`: Landlock allows a folder as a whole."""
    closed = [Path(path).resolve() for path in closed]
    waiting, found = [Path(path).resolve() for path in readable], []
    while waiting:
        path = waiting.pop()
        if any(path.is_relative_to(other) for other in closed):
            continue
        if any(other.is_relative_to(path) for other in closed):
            waiting += path.iterdir()
        else:
            found.append(path)
    return found


# ---- system calls: seccomp

DENIED = (
    "socket", "connect", "bind", "listen", "accept", "accept4", "sendto", "sendmsg", "sendmmsg", "socketpair",
    "fork", "vfork", "execve", "execveat", "unshare", "setns",
    "tkill", "rt_sigqueueinfo", "pidfd_open", "pidfd_send_signal", "pidfd_getfd",
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp",
    "io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "perf_event_open", "userfaultfd",
    "add_key", "request_key", "keyctl", "mount", "umount2", "pivot_root", "chroot",
    "shmget", "shmat", "semget", "msgget", "mq_open", "memfd_secret", "memfd_create",
    "shmctl", "semctl", "semop", "semtimedop", "msgctl", "msgsnd", "msgrcv", "mq_unlink",
    "setpriority", "sched_setaffinity", "sched_setscheduler", "sched_setattr", "ioprio_set",
)  # fmt: skip
IGNORED = (  # Landlock does not know them, and copying a file calls them: they do nothing, and say that they did
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat",
    "utime", "utimes", "futimesat", "utimensat",
    "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr",
)  # fmt: skip
CLONE_THREAD = 0x10000


def _restrict_calls():
    """Refuse the system calls that an answer has no use for. Returns whether the system can do so."""
    try:
        import pyseccomp as seccomp
    except (ImportError, RuntimeError):  # not installed, or no libseccomp on this system
        return False
    refused, own = seccomp.ERRNO(errno.EPERM), os.getpid()
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    for name in [*DENIED, *IGNORED]:
        with contextlib.suppress(OSError):  # not a system call of this machine
            rules.add_rule(refused if name in DENIED else seccomp.ERRNO(0), name)
    for name, place in (("kill", 0), ("tgkill", 0), ("rt_tgsigqueueinfo", 0)):
        rules.add_rule(refused, name, seccomp.Arg(place, seccomp.NE, own))
    rules.add_rule(refused, "prlimit64", seccomp.Arg(0, seccomp.NE, 0))
    for command in (8, 10, 15):  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to others by way of a pipe
        rules.add_rule(refused, "fcntl", seccomp.Arg(1, seccomp.EQ, command))
    rules.add_rule(refused, "prctl", seccomp.Arg(0, seccomp.EQ, 4))  # PR_SET_DUMPABLE: its files could not be seen
    rules.add_rule(refused, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_THREAD, 0))  # threads are allowed
    rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")  # its flags are out of sight: so that `clone` is taken
    rules.load()
    return True
