"""What a decoder process gives up before it reads its first job.

Hostile pixels are expected to take the process over sooner or later. By then it holds one socket to
its parent and nothing else: no files, no network, no new processes, no privileges, little memory.
"""

import ctypes
import os
import platform
import resource
import signal
import struct

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 1, 22, 38, 4
_CLONE_NEWNET = 0x40000000
_NOBODY = 65534
_OPEN_FILES = 16

# System calls that a decoder needs once it is warm, by architecture (number of AUDIT_ARCH, calls):
# read, write, close, lseek, mmap, mprotect, munmap, brk, rt_sigaction, rt_sigprocmask, rt_sigreturn,
# mremap, madvise, getpid, sendto, recvfrom, sendmsg, recvmsg, exit, exit_group, futex, sched_yield,
# clock_gettime, clock_nanosleep, getrandom, prlimit64, gettid, tgkill, restart_syscall, fstat,
# sched_getaffinity, getrusage, poll or ppoll. Anything else fails with EPERM.
_ALLOWED = {
    "x86_64": (
        0xC000003E,
        (0, 1, 3, 8, 9, 10, 11, 12, 13, 14, 15, 25, 28, 39, 44, 45, 46, 47, 60, 231, 202, 24, 228, 230,
         318, 302, 186, 234, 219, 5, 204, 98, 7, 271),
    ),
    "aarch64": (
        0xC00000B7,
        (63, 64, 57, 62, 222, 226, 215, 214, 134, 135, 139, 216, 233, 172, 206, 207, 211, 212, 93, 94, 98,
         124, 113, 115, 278, 261, 178, 131, 128, 80, 123, 165, 73),
    ),
}  # fmt: skip


def die_with(parent: int) -> None:
    """End this process when the thread that started it ends; at once if `parent` is gone already."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the parent is gone")


def enter(memory_bytes: int, parent: int) -> None:
    """Give up everything; raises OSError if the kernel refuses what it must not refuse."""
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    if os.geteuid() == 0:
        # Without CAP_SYS_ADMIN (in a container) this fails; the filter below forbids sockets anyway.
        libc.unshare(_CLONE_NEWNET)
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        die_with(parent)  # a change of credentials clears it
    # Root's processes are not bound by this one; the filter binds all.
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    _filter(libc)


def _filter(libc: ctypes.CDLL) -> None:
    """Allow the system calls in `_ALLOWED`, fail the others with EPERM (seccomp, classic BPF)."""
    known = _ALLOWED.get(platform.machine())
    if known is None:
        return  # an architecture without a list: the other limits hold
    architecture, calls = known
    load, equal, ret = 0x20, 0x15, 0x06
    allow, deny = 0x7FFF0000, 0x00050000 | 1
    program = [
        (load, 0, 0, 4),
        (equal, 1, 0, architecture),
        (ret, 0, 0, 0x80000000),  # another architecture's calls: kill
        (load, 0, 0, 0),
        *((equal, len(calls) - index, 0, call) for index, call in enumerate(calls)),
        (ret, 0, 0, deny),
        (ret, 0, 0, allow),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    if libc.prctl(_PR_SET_SECCOMP, 2, ctypes.create_string_buffer(header), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def allow_cpu(seconds: float) -> None:
    """Let the process use this much more CPU time; the kernel ends it beyond, whatever the parent does."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
