"""What is tried from inside a sandbox. This source is handed to `runs_python.py` in there, and run there.

Each function is one attempt and its docstring what is tried. It raises, says why it could not, or says "escaped". `f`
has the facts of the host that `tests/sandbox_table.py` knows. Standard library only. `after` names a check on the host.
"""

import ctypes
import errno
import fcntl
import glob
import os
import resource
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from typing import Any

Facts = dict[str, Any]
Attempt = Callable[[Facts], object]

ATTEMPTS: list[tuple[str, Attempt, str]] = []  # group, function, check on the host
ESCAPED = "escaped"
PROXY = ("127.0.0.1", 3128)
_SYSCALLS = {"pivot_root": 155, "init_module": 175, "keyctl": 250, "bpf": 321, "perf_event_open": 298}  # of x86-64

libc = ctypes.CDLL(None, use_errno=True)


def attempt(group: str, after: str = "") -> Callable[[Attempt], Attempt]:
    def keep(function: Attempt) -> Attempt:
        ATTEMPTS.append((group, function, after))
        return function

    return keep


def run(name: str, facts: Facts) -> None:
    """Prints what came of one attempt."""
    function = next(function for _, function, _ in ATTEMPTS if function.__name__ == name)
    try:
        print(function(facts))
    except OSError as error:
        print(error.strerror or error)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")


def called(result: int) -> str:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return ESCAPED


def system(name: str, *arguments: object) -> str:
    return called(libc.syscall(_SYSCALLS[name], *arguments))


def read(path: str) -> str:
    if os.path.isdir(path):
        return f"{ESCAPED}: {len(os.listdir(path))} entries"
    with open(path, "rb") as file:
        return f"{ESCAPED}: {len(file.read(100))} bytes"


def write(path: str) -> str:
    with open(path, "ab") as file:
        file.write(b"x")
    return ESCAPED


def connect(family: int, address: object, kind: int = socket.SOCK_STREAM) -> str:
    with socket.socket(family, kind) as client:
        client.settimeout(2)
        client.connect(address)  # type: ignore[arg-type]
    return ESCAPED


# --- files


@attempt("files")
def write_usr(f: Facts) -> object:
    """write to /usr"""
    return write("/usr/bin/planted")


@attempt("files")
def write_etc(f: Facts) -> object:
    """write to /etc"""
    return write("/etc/passwd")


@attempt("files")
def write_root(f: Facts) -> object:
    """write beside the system, at the root"""
    return write("/planted")


@attempt("files")
def write_dev(f: Facts) -> object:
    """make a file in /dev"""
    return write("/dev/planted")


@attempt("files")
def write_state(f: Facts) -> object:
    """write into the state folder"""
    return write(f"{f['state_dir']}/planted")


@attempt("files")
def read_other(f: Facts) -> object:
    """read another conversation's workspace"""
    return read(f"{f['other']}/secret")


@attempt("files")
def list_workspaces(f: Facts) -> object:
    """list all workspaces"""
    found = os.listdir(f["workspaces"])
    return "only its own is there" if found == [os.path.basename(os.getcwd())] else f"{ESCAPED}: {found}"


@attempt("files")
def read_key(f: Facts) -> object:
    """read a key of the supervisor"""
    return read(f"{f['state_dir']}/admin_key")


@attempt("files")
def read_shadow(f: Facts) -> object:
    """read /etc/shadow"""
    return read("/etc/shadow")


@attempt("files")
def read_tmp(f: Facts) -> object:
    """read the host's /tmp"""
    return read(f["bait"])


@attempt("files")
def read_shm(f: Facts) -> object:
    """read the host's /dev/shm"""
    return read(f["shm"])


@attempt("files")
def read_home(f: Facts) -> object:
    """read home folders"""
    return read("/root" if os.path.isdir("/root") else "/home")


@attempt("files")
def read_sys(f: Facts) -> object:
    """look at /sys"""
    return read("/sys/kernel")


@attempt("files")
def climb(f: Facts) -> object:
    """climb out with `..`"""
    here = os.getcwd()
    try:
        os.chdir("../" * 60)
        return read(f["bait"][1:])
    finally:
        os.chdir(here)


@attempt("files")
def change_root(f: Facts) -> object:
    """change the root folder, to climb out of it"""
    os.chroot("temp")
    return ESCAPED


@attempt("files")
def root_of_init(f: Facts) -> object:
    """go through the root folder of process 1"""
    return read(f"/proc/1/root{f['bait']}")


@attempt("files")
def inherited_folder(f: Facts) -> object:
    """find a folder of the host among its descriptors"""
    found = [fd for fd in os.listdir("/proc/self/fd") if os.path.isdir(f"/proc/self/fd/{fd}")]
    kept = [os.readlink(f"/proc/self/fd/{fd}") for fd in found if os.path.exists(f"/proc/self/fd/{fd}")]
    return f"{ESCAPED}: {kept}" if kept else "there is none"


@attempt("files")
def descriptors_of_init(f: Facts) -> object:
    """take a descriptor of process 1"""
    kinds = [os.readlink(path) for path in glob.glob("/proc/1/fd/*")]
    bad = [kind for kind in kinds if not kind.startswith(("/dev/null", "pipe:", "anon_inode"))]
    return f"{ESCAPED}: {bad}" if bad else "it has /dev/null, the log pipe and an event counter"


@attempt("files")
def hard_link(f: Facts) -> object:
    """make a hard link to a system file"""
    os.link("/etc/passwd", "temp/hard")
    return ESCAPED


@attempt("files")
def set_uid(f: Facts) -> object:
    """run a set-uid program of its own"""
    shutil.copy("/bin/sh", "temp/suid")
    os.chmod("temp/suid", 0o6755)
    script = "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status"
    seen = subprocess.run(["temp/suid", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    expected = ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]
    return "it runs, with no capability and no way to any" if seen == expected else f"{ESCAPED}: {seen}"


@attempt("files")
def device_node(f: Facts) -> object:
    """make a device node of a disk"""
    os.mknod("temp/disk", stat.S_IFBLK | 0o600, os.makedev(254, 0))
    return ESCAPED


@attempt("files")
def devices(f: Facts) -> object:
    """open the disks and the memory of the host"""
    found = [path for path in ("/dev/mem", "/dev/kmem", "/dev/kvm", "/dev/vda", "/dev/sda") if os.path.exists(path)]
    return f"{ESCAPED}: {found}" if found else "they are not there"


@attempt("files")
def kernel_setting(f: Facts) -> object:
    """change a kernel setting"""
    return write("/proc/sys/kernel/core_pattern")


@attempt("files")
def sysrq(f: Facts) -> object:
    """write to sysrq-trigger"""
    return write("/proc/sysrq-trigger")


@attempt("files")
def fill_tmp(f: Facts) -> object:
    """fill the memory through /tmp (its limit is 16 MB here)"""
    written = 0
    try:
        for number in range(64):
            with open(f"/tmp/{number}", "wb") as file:
                written += file.write(bytes(1024 * 1024))
    except OSError as error:
        return error.strerror
    finally:
        for path in glob.glob("/tmp/[0-9]*"):
            os.unlink(path)
    return f"{ESCAPED}: {written} bytes"


@attempt("files", after="output_refused")
def link_in_output(f: Facts) -> object:
    """leave a link to a host's file in output/, for the supervisor to deliver"""
    return os.symlink(f["bait"], "output/link")


@attempt("files", after="victim_is_there")
def link_for_temp(f: Facts) -> object:
    """put a link to a host's folder in place of temp/, for the supervisor to empty"""
    shutil.rmtree("temp")
    return os.symlink(f["victims"], "temp")


# --- the kernel


@attempt("kernel")
def mount(f: Facts) -> object:
    """mount a file system"""
    return called(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))


@attempt("kernel")
def remount(f: Facts) -> object:
    """make /usr writable by mounting it again"""
    return called(libc.mount(None, b"/usr", None, 0x20 | 0x1000, None))


@attempt("kernel")
def uncover(f: Facts) -> object:
    """take a mount away, to see what lies beneath"""
    return called(libc.umount2(f["state_dir"].encode(), 2))


@attempt("kernel")
def user_namespace(f: Facts) -> object:
    """become root of a user namespace of its own"""
    return called(libc.unshare(0x10000000))


@attempt("kernel")
def mount_namespace(f: Facts) -> object:
    """make a mount namespace of its own"""
    return called(libc.unshare(0x00020000))


@attempt("kernel")
def namespaces_of_init(f: Facts) -> object:
    """enter the namespaces of process 1"""
    return called(libc.setns(os.open("/proc/1/ns/mnt", os.O_RDONLY), 0))


@attempt("kernel")
def pivot(f: Facts) -> object:
    """exchange the root folder (pivot_root)"""
    return system("pivot_root", b".", b".")


@attempt("kernel")
def module(f: Facts) -> object:
    """load a kernel module"""
    return system("init_module", b"", 0, b"")


@attempt("kernel")
def bpf(f: Facts) -> object:
    """load a BPF program"""
    return system("bpf", 5, bytes(128), 128)


@attempt("kernel")
def host_name(f: Facts) -> object:
    """set the host's name"""
    return called(libc.sethostname(b"x", 1))


@attempt("kernel")
def clock(f: Facts) -> object:
    """set the clock"""
    time.clock_settime(time.CLOCK_REALTIME, time.time())
    return ESCAPED


@attempt("kernel")
def higher_limit(f: Facts) -> object:
    """give itself a higher limit"""
    resource.setrlimit(resource.RLIMIT_NOFILE, (999_999, 999_999))
    return ESCAPED


@attempt("kernel")
def typing(f: Facts) -> object:
    """type into the terminal that the supervisor was started from (TIOCSTI)"""
    fcntl.ioctl(os.open("/dev/tty", os.O_RDWR), 0x5412, b"x")
    return ESCAPED


@attempt("kernel")
def keyring(f: Facts) -> object:
    """find a key in the supervisor's keyring"""
    return system("keyctl", 10, -3, b"user", f["key"].encode(), 0)


# --- processes


@attempt("processes")
def see(f: Facts) -> object:
    """see processes of the host"""
    found = [name for name in os.listdir("/proc") if name.isdigit()]
    return f"{ESCAPED}: {len(found)}" if len(found) > 4 else "it sees its own sandbox's"


@attempt("processes")
def signal_supervisor(f: Facts) -> object:
    """signal the supervisor"""
    os.kill(f["pid"], 0)
    return ESCAPED


@attempt("processes", after="supervisor_lives")
def signal_all(f: Facts) -> object:
    """signal every process at once"""
    return os.kill(-1, 0)


@attempt("processes")
def trace(f: Facts) -> object:
    """trace the supervisor (ptrace)"""
    return called(libc.ptrace(16, f["pid"], None, None))


@attempt("processes")
def environment(f: Facts) -> object:
    """read the supervisor's environment"""
    return read(f"/proc/{f['pid']}/environ")


@attempt("processes", after="daemon_ends")
def daemon(f: Facts) -> object:
    """leave a daemon behind that outlives the worker"""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve("/bin/sleep", ["sleep", f["nap"]], {})
        os._exit(0)
    return os.wait()


# --- network


@attempt("network")
def host_loopback(f: Facts) -> object:
    """connect to a listener on the host's loopback"""
    return connect(socket.AF_INET, ("127.0.0.1", f["port"]))


@attempt("network")
def host_address(f: Facts) -> object:
    """connect to the same listener on the host's own address"""
    return connect(socket.AF_INET, (f["address"], f["port"]))


@attempt("network")
def metadata(f: Facts) -> object:
    """connect to the cloud's metadata address"""
    return connect(socket.AF_INET, ("169.254.169.254", 80))


@attempt("network")
def name_server(f: Facts) -> object:
    """ask a name server"""
    return connect(socket.AF_INET, ("192.0.2.53", 53), socket.SOCK_DGRAM)


@attempt("network")
def raw_socket(f: Facts) -> object:
    """open a raw socket"""
    socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()
    return ESCAPED


@attempt("network")
def packet_socket(f: Facts) -> object:
    """open a packet socket"""
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 768).close()
    return ESCAPED


@attempt("network")
def abstract_socket(f: Facts) -> object:
    """connect to an abstract unix socket of the host"""
    return connect(socket.AF_UNIX, f"\0{f['abstract']}")


@attempt("network")
def container_daemon(f: Facts) -> object:
    """connect to the container daemon's socket"""
    return connect(socket.AF_UNIX, "/var/run/docker.sock")


@attempt("network")
def spawner(f: Facts) -> object:
    """connect to the spawner's socket"""
    return connect(socket.AF_UNIX, f"{f['state_dir']}/spawner/socket", socket.SOCK_SEQPACKET)


# --- the proxy


def ask(request: str) -> str:
    """The first line of the answer, then its body. The connection is used once."""
    with socket.create_connection(PROXY, 5) as client:
        client.settimeout(5)
        try:
            client.sendall(request.encode())
        except OSError as error:
            if error.errno != errno.EPIPE and error.errno != errno.ECONNRESET:
                raise
        answer = b""
        while b"established" not in answer and (data := client.recv(65536)):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return f"{head.split(bytes([13, 10]))[0].decode()} {body.decode(errors='replace').strip()}"


def refused(request: str) -> str:
    answer = ask(request)
    return answer.removeprefix("HTTP/1.1 ") if answer.startswith("HTTP/1.1 4") else f"{ESCAPED}: {answer}"


def tunnel(target: str) -> str:
    return refused(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")


def get(target: str, host: str, more: str = "", method: str = "GET") -> str:
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"


_SPELLINGS = {
    "127.0.0.1": "127.0.0.1",
    "2130706433 (decimal)": "2130706433",
    "0x7f000001 (hex)": "0x7f000001",
    "0x7f.0.0.1": "0x7f.0.0.1",
    "0177.0.0.1 (octal)": "0177.0.0.1",
    "127.1 (short)": "127.1",
    "0 (all of them)": "0",
    "127.0.0.1. (a dot at the end)": "127.0.0.1.",
    "[::1]": "[::1]",
    "[::ffff:127.0.0.1]": "[::ffff:127.0.0.1]",
    "127%2e0.0.1 (percent sign)": "127%2e0.0.1",
    "wide digits (Unicode)": "\uff11\uff12\uff17.0.0.1",
}


def _by_address(number: int, what: str, host: str) -> None:
    def try_it(f: Facts) -> object:
        return tunnel(f"{host}:{f['port']}")

    try_it.__name__, try_it.__doc__ = f"by_address_{number}", f"ask for loopback by address: {what}"
    attempt("proxy")(try_it)


for _number, (_what, _host) in enumerate(_SPELLINGS.items()):
    _by_address(_number, _what, _host)


@attempt("proxy")
def user_in_front(f: Facts) -> object:
    """put a listed name in front as a user"""
    return tunnel(f"allowed.test:{f['allowed']}@127.0.0.1:{f['port']}")


@attempt("proxy")
def unlisted_name(f: Facts) -> object:
    """ask for a name that is not listed"""
    return tunnel(f"other.test:{f['allowed']}")


@attempt("proxy")
def unlisted_port(f: Facts) -> object:
    """ask for a listed name and another port"""
    return tunnel(f"allowed.test:{f['port']}")


@attempt("proxy")
def name_within_name(f: Facts) -> object:
    """ask for a name that begins with a listed one"""
    return tunnel(f"allowed.test.evil.test:{f['allowed']}")


@attempt("proxy")
def ending_without_dot(f: Facts) -> object:
    """ask for a name that ends like a listed `*.` without its dot"""
    return tunnel(f"evilwild.test:{f['allowed']}")


@attempt("proxy")
def nul(f: Facts) -> object:
    """cut a listed name off with a NUL"""
    return tunnel(f"allowed.test\0.evil.test:{f['allowed']}")


@attempt("proxy")
def name_to_loopback(f: Facts) -> object:
    """ask for a listed name that leads to loopback"""
    return tunnel(f"loopback.wild.test:{f['allowed']}")


@attempt("proxy")
def name_to_metadata(f: Facts) -> object:
    """ask for a listed name that leads to the metadata address"""
    return tunnel(f"metadata.wild.test:{f['allowed']}")


@attempt("proxy")
def name_to_mapped(f: Facts) -> object:
    """ask for a listed name that leads to ::ffff:127.0.0.1"""
    return tunnel(f"mapped.wild.test:{f['allowed']}")


@attempt("proxy")
def name_to_both(f: Facts) -> object:
    """ask for a listed name that has a public address and a private one"""
    return tunnel(f"mixed.wild.test:{f['allowed']}")


@attempt("proxy", after="looked_up_once")
def rebinding(f: Facts) -> object:
    """ask for a name that leads elsewhere when it is looked up again (DNS rebinding)"""
    return ask(f"CONNECT rebinding.test:{f['allowed']} HTTP/1.1\r\nHost: x\r\n\r\n")


@attempt("proxy")
def plain_to_address(f: Facts) -> object:
    """ask for an address in plain HTTP"""
    return refused(get(f"http://127.0.0.1:{f['port']}/", f"127.0.0.1:{f['port']}"))


@attempt("proxy")
def other_host_header(f: Facts) -> object:
    """name another host in the Host header"""
    return refused(get(f"http://allowed.test:{f['allowed']}/", "other.test"))


@attempt("proxy")
def two_host_headers(f: Facts) -> object:
    """name two hosts in two Host headers"""
    named = f"allowed.test:{f['allowed']}"
    return refused(get(f"http://{named}/", named, "Host: other.test\r\n"))


@attempt("proxy")
def two_lengths(f: Facts) -> object:
    """give the length of the body in two ways (smuggling)"""
    named = f"allowed.test:{f['allowed']}"
    more = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"
    return refused(get(f"http://{named}/", named, more, "POST") + "0\r\n\r\n")


@attempt("proxy", after="one_request_arrived")
def pipelined(f: Facts) -> object:
    """send a second request, to another host, behind the first"""
    named = f"allowed.test:{f['allowed']}"
    return ask(get(f"http://{named}/one", named) + get("http://127.0.0.1/two", "127.0.0.1"))


@attempt("proxy", after="headers_are_clean")
def folded(f: Facts) -> object:
    """hide a header in the fold of another, and pass on those of the connection"""
    named = f"allowed.test:{f['allowed']}"
    more = "X-A: 1\r\n Transfer-Encoding: chunked\r\nConnection: X-Secret\r\nX-Secret: 1\r\nProxy-Authorization: x\r\n"
    return ask(get(f"http://{named}/fold", named, more))


@attempt("proxy")
def backslash(f: Facts) -> object:
    """write a target that can be read in two ways"""
    return refused(get(f"http://allowed.test:{f['allowed']}\\@127.0.0.1:{f['port']}/", "allowed.test"))


@attempt("proxy")
def https_target(f: Facts) -> object:
    """have the proxy speak https"""
    return refused(get(f"https://allowed.test:{f['allowed']}/", "allowed.test"))


@attempt("proxy")
def file_target(f: Facts) -> object:
    """have the proxy read a file"""
    return refused(get("file:///etc/shadow", "allowed.test"))


@attempt("proxy")
def endless_head(f: Facts) -> object:
    """send a request head without end"""
    return refused(get(f"http://allowed.test:{f['allowed']}/", "allowed.test", "X: " + "x" * 200_000))


@attempt("proxy")
def slow_head(f: Facts) -> object:
    """begin a request and never end it (the clock is 1 s here)"""
    return refused("CONNECT allowed.te")
