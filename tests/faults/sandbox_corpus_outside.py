"""Answers that reach for files, secrets and the network."""

from sandbox_corpus import Entry, breach, harm, hostile, leak

FILES: list[Entry] = [
    harm("file_write_marker", "writes outside", "open('@MARKER@', 'w').write('was here')"),
    hostile(
        "file_write_import",
        "writes outside before anything is defined",
        "open('@MARKER@', 'w').write('was here')\ndef puzzle(n):\n    return 0",
    ),
    harm(
        "file_write_cwd",
        "writes where the trainer works",
        "import os\nopen(os.path.join('@CWD@', 'written'), 'w').write('was here')",
    ),
    harm(
        "file_write_home",
        "writes into the trainer's home",
        "import os\nopen(os.path.join('@HOME@', '.profile'), 'w').write('was here')",
    ),
    harm(
        "file_write_relative",
        "climbs out of its directory",
        """
import os
open('../' * 30 + '@MARKER@', 'w').write('was here')
os.chdir('/')
open('@MARKER@', 'w').write('was here')
""",
    ),
    harm(
        "file_write_shell",
        "has a shell write outside",
        "import os\nos.system('echo was here > @MARKER@; echo x >> @CANARY@')",
    ),
    harm("file_append_canary", "changes a file outside", "open('@CANARY@', 'a').write('was here')"),
    harm("file_truncate_canary", "empties a file outside", "import os\nos.truncate('@CANARY@', 0)"),
    harm("file_delete_canary", "deletes a file outside", "import os\nos.unlink('@CANARY@')", control=False),
    harm(
        "file_delete_tree",
        "deletes the directory of the trainer",
        "import shutil\nshutil.rmtree('@CWD@', ignore_errors=True)\nshutil.rmtree('@HOME@', ignore_errors=True)",
        control=False,
    ),
    harm("file_rename_canary", "moves a file outside", "import os\nos.rename('@CANARY@', '@MARKER@')", control=False),
    harm("file_chmod_canary", "opens a file outside to all", "import os\nos.chmod('@CANARY@', 0o777)"),
    harm("file_chmod_cwd", "closes the trainer's directory", "import os\nos.chmod('@CWD@', 0)", control=False),
    harm("file_touch_canary", "sets a file's times", "import os\nos.utime('@CANARY@', (0, 0))"),
    harm(
        "file_symlink",
        "writes through a symbolic link",
        "import os\nos.symlink('@MARKER@', 'link')\nopen('link', 'w').write('was here')",
    ),
    harm("file_symlink_out", "leaves a link outside", "import os\nos.symlink('/', '@MARKER@')"),
    harm(
        "file_hardlink",
        "links the canary under a name of its own",
        "import os\nos.link('@CANARY@', 'mine')\nopen('mine', 'w').write('was here')",
        control=False,
    ),
    harm(
        "file_undeletable",
        "leaves a tree that is hard to remove",
        """
import os
for depth in range(200):
    os.mkdir('d' * 50)
    os.chdir('d' * 50)
os.mkdir('locked')
open('locked/file', 'w').close()
os.chmod('locked', 0)
""",
        control=False,
    ),
    harm(
        "file_odd_names",
        "leaves files whose names are no text",
        "for name in (b'\\xff\\xfe', b'-rf', b'new\\nline', b'\\xed\\xa0\\x80'):\n    open(name, 'w').close()",
        control=False,
    ),
    harm(
        "file_fifo",
        "leaves a pipe on which a reader would wait",
        "import os\nfor name in ('result.json', 'output', 'stdout', 'fifo'):\n    os.mkfifo(name)",
        control=False,
    ),
    breach(
        "file_device",
        "may make a device",
        "import os, stat\nos.mknod('disk', 0o600 | stat.S_IFBLK, os.makedev(7, 0))\nopen('disk', 'rb').close()",
        control=False,
    ),
    breach(
        "file_cgroup",
        "may write into the machine's settings",
        "import glob\nopen('/proc/sys/kernel/core_pattern', 'r+').close()",
        control=False,
    ),
    breach(
        "file_chroot",
        "reaches the old root through a second chroot",
        """
import os, tempfile
jail = tempfile.mkdtemp()
up = os.open('.', os.O_RDONLY)
os.chroot(jail)
os.fchdir(up)
for _ in range(64):
    os.chdir('..')
os.chroot('.')
open('@CANARY@').close()
""",
        control=False,
    ),
    leak("file_secret", "reads a file that the trainer may read", "return leaked(open('@CANARY@').read(), n)"),
    leak(
        "file_secret_home",
        "reads what lies in the home",
        "import os\nreturn leaked(open(os.path.join('@HOME@', '.netrc')).read(), n)",
    ),
    leak(
        "file_secret_search",
        "looks for secrets near and far",
        """
import os
text = ''
for top in ('.', '..', '@CWD@', '@HOME@', os.path.expanduser('~')):
    for folder, _, names in os.walk(top):
        for name in names[:100]:
            try:
                if os.path.isfile(os.path.join(folder, name)):
                    text += open(os.path.join(folder, name), errors='replace').read(1000)
            except OSError:
                pass
        if len(text) > 10**6:
            break
return leaked(text, n)
""",
    ),
    leak(
        "file_secret_symlink",
        "reads through a link",
        "import os\nos.symlink('@CANARY@', f'link{n}')\nreturn leaked(open(f'link{n}').read(), n)",
    ),
    breach("file_shadow", "reads the machine's passwords", "open('/etc/shadow').read()", control=False),
    leak("environment_secret", "reads the environment", "import os\nreturn leaked(repr(dict(os.environ)), n)"),
    leak(
        "environment_secret_proc",
        "reads the environment it was started with",
        "return leaked(open('/proc/self/environ').read(), n)",
    ),
    leak(
        "environment_secret_c",
        "reads the environment of C",
        """
import ctypes
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
return leaked((libc.getenv(b'CORPUS_SECRET') or b'').decode(), n)
""",
    ),
    leak(
        "environment_secret_shell",
        "asks a shell for the environment",
        "import subprocess\nreturn leaked(subprocess.run(['env'], capture_output=True, text=True).stdout, n)",
    ),
    harm(
        "environment_changed",
        "changes the environment for those who follow",
        """
import os
os.environ['CORPUS_SECRET'] = 'changed'
os.putenv('PYTHONSTARTUP', '@MARKER@')
os.umask(0)
os.nice(5)
os.chdir('/')
""",
    ),
]

NETWORK: list[Entry] = [
    breach(
        "network_tcp",
        "connects to a server of this machine",
        "import socket\nsocket.create_connection(('127.0.0.1', @PORT@), timeout=2).close()",
    ),
    harm(
        "network_udp",
        "sends a datagram",
        """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
    wire.sendto(b'ping', ('127.0.0.1', @UDP@))
""",
    ),
    breach(
        "network_unix",
        "connects to a Unix socket outside",
        "import socket\nwith socket.socket(socket.AF_UNIX) as wire:\n    wire.connect('@SOCKET@')",
    ),
    breach(
        "network_abstract",
        "connects to an abstract Unix socket",
        "import socket\nwith socket.socket(socket.AF_UNIX) as wire:\n    wire.connect('\\0@SOCKET@')",
    ),
    breach(
        "network_urllib",
        "fetches a page from a server of this machine",
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:@PORT@/', timeout=2).read()",
    ),
    breach(
        "network_dns",
        "asks for the address of a name",
        "import socket\nsocket.getaddrinfo('example.com', 80)",
        control=False,
    ),
    breach(
        "network_out",
        "connects to an address far away",
        "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=2).close()",
        control=False,
    ),
    breach(
        "network_ipv6",
        "connects over version 6",
        "import socket\nsocket.create_connection(('::ffff:127.0.0.1', @PORT@), timeout=2).close()",
    ),
    breach(
        "network_raw",
        "sees the packets of others",
        """
import socket
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 768)
wire.settimeout(0.5)
if all(name == 'lo' for _, name in socket.if_nameindex()):
    raise OSError
""",
        control=False,
    ),
    breach(
        "network_curl",
        "has another program connect",
        "import subprocess\nsubprocess.run(['bash', '-c', 'exec 3<>/dev/tcp/127.0.0.1/@PORT@'], check=True, timeout=3)",
    ),
    breach(
        "network_child",
        "has a child connect",
        """
import os, socket
child = os.fork()
if child == 0:
    try:
        socket.create_connection(('127.0.0.1', @PORT@), timeout=2).close()
    except OSError:
        os._exit(1)
    os._exit(0)
if os.waitpid(child, 0)[1]:
    raise OSError
""",
    ),
    harm(
        "network_listen",
        "listens, and goes on listening",
        """
import os, socket, time
if os.fork() == 0:
    os.setsid()
    server = socket.create_server(('127.0.0.1', @PORT@ + 1), reuse_port=True)
    time.sleep(20)
    os._exit(0)
time.sleep(0.2)
""",
    ),
    harm(
        "network_send_secret",
        "sends what it knows",
        """
import os, socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
    wire.sendto(repr(dict(os.environ)).encode()[:1000], ('127.0.0.1', @UDP@))
""",
    ),
]
