"""The world around an answer: a canary, a home, servers that nobody may reach, and what has become of them."""

import os
import random
import shutil
import socket
from pathlib import Path

from sandbox_corpus import SECRET, Entry

PID_NAMESPACE = str(Path("/proc/self/ns/pid").readlink()) if Path("/proc/self/ns/pid").exists() else "none"
NOBODYS_PORTS = range(10_000, 32_000)
"""Below those that systems give to whoever asks for any: a server there is nobody else's by chance."""
SECRETS = ("canary", "home/.netrc", "cwd/config.txt")


class World:
    """Files under `folder` and servers on 127.0.0.1; `harm` says what an answer has done to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: dict[str, socket.socket] = {}
        self.tcp, self.tcp_port = self._tcp()
        self.udp = self._bound(socket.SOCK_DGRAM, socket.AF_INET, ("127.0.0.1", 0))
        for name in ("cwd", "home", "tmp"):
            (folder / name).mkdir(parents=True)
        for name in SECRETS:
            (folder / name).write_text(f"{SECRET}\n")
        address = str(folder / "socket")
        self.unix = self._bound(socket.SOCK_STREAM, socket.AF_UNIX, address)
        self.abstract = self._bound(socket.SOCK_STREAM, socket.AF_UNIX, f"\0{address}")
        self.before = self._state()

    def _bound(self, kind: socket.SocketKind, family: socket.AddressFamily, address: object) -> socket.socket:
        server = socket.socket(family, kind)
        server.bind(address)
        server.setblocking(False)
        if kind == socket.SOCK_STREAM:
            server.listen(64)
        self.servers[f"{family.name} {kind.name} {len(self.servers)}"] = server
        return server

    def _tcp(self) -> tuple[socket.socket, int]:
        """A server whose next port is free: for an answer that listens."""
        for port in random.sample(NOBODYS_PORTS, len(NOBODYS_PORTS)):
            if reachable(port) or reachable(port + 1):
                continue
            server = socket.create_server(("127.0.0.1", port))
            server.setblocking(False)
            self.servers["tcp"] = server
            return server, port
        raise OSError("no free port")

    def environment(self) -> dict[str, str]:
        """A trainer's: with a secret, and a home and a place for temporary files that are watched."""
        places = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp")}
        return {**os.environ, **places, "CORPUS_SECRET": SECRET, "OPENBLAS_NUM_THREADS": "1"}

    def places(self, entry: Entry, trainer: int) -> dict[str, object]:
        return {
            "MARKER": self.marker(entry),
            "CANARY": self.folder / "canary",
            "CWD": self.folder / "cwd",
            "HOME": self.folder / "home",
            "PORT": self.tcp_port,
            "UDP": self.udp.getsockname()[1],
            "SOCKET": self.folder / "socket",
            "PID": trainer,
            "PIDNS": PID_NAMESPACE,
        }

    def marker(self, entry: Entry) -> Path:
        return self.folder / f"marker-{entry.name}"

    def _state(self) -> dict[str, tuple[object, ...]]:
        """Every file and folder: mode, size, links and, for files, the time of the last change."""
        found = {}
        for path in (self.folder, *self.folder.rglob("*")):
            stat = path.lstat()
            times = (stat.st_mtime_ns, stat.st_size, stat.st_nlink) if path.is_file() else ()
            found[str(path.relative_to(self.folder))] = (stat.st_mode, *times)
        return found

    def harm(self) -> list[str]:
        """What differs from the start, in words; everything is put back, so that one answer's harm is its own."""
        now = self._state()
        differing = sorted(name for name in {*now, *self.before} if now.get(name) != self.before.get(name))
        done = [f"file {name!r} is {_how(name in now, name in self.before)}" for name in differing]
        done += [f"server {name} was reached" for name, server in self.servers.items() if visited(server)]
        if reachable(self.tcp_port + 1):
            done.append("a server is left behind")
        if differing:
            self._put_back()
        return done

    def _put_back(self) -> None:
        for name in ("cwd", "home", "tmp"):
            folder = self.folder / name
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
            for inside in folder.iterdir():
                shutil.rmtree(inside) if inside.is_dir() and not inside.is_symlink() else inside.unlink()
        for marker in self.folder.glob("marker-*"):
            marker.unlink()
        for name in SECRETS:
            (self.folder / name).write_text(f"{SECRET}\n")
            (self.folder / name).chmod(0o644)
        self.before = self._state()

    def close(self) -> None:
        for server in self.servers.values():
            server.close()


def _how(is_there: bool, was_there: bool) -> str:
    return "changed" if is_there and was_there else "new" if is_there else "deleted"


def visited(server: socket.socket) -> bool:
    """Whether anybody waits, or has sent something; who waited is sent away."""
    seen = False
    while True:
        try:
            if server.type == socket.SOCK_DGRAM:
                server.recv(4096)
            else:
                server.accept()[0].close()
        except BlockingIOError:
            return seen
        seen = True


def reachable(port: int) -> bool:
    with socket.socket() as wire:
        wire.settimeout(0.5)
        return wire.connect_ex(("127.0.0.1", port)) == 0
