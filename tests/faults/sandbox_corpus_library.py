"""Honest answers by what they use of the standard library, and answers that are right in part."""

from sandbox_corpus import Entry, honest

ADD = "def add(a, b):\n    return a + b"
ADDS = ["assert add(1, 2) == 3", "assert add(-4, 9) == 5"]

LIBRARY: list[Entry] = [
    honest(
        "library_imports",
        "imports much of the standard library",
        """
import abc, argparse, array, ast, base64, bisect, calendar, cmath, collections, configparser, contextlib
import copy, csv, dataclasses, datetime, decimal, difflib, enum, fractions, functools, gzip, hashlib
import heapq, html, inspect, io, itertools, json, logging, math, numbers, operator, os, pathlib, pprint
import queue, random, re, secrets, shutil, sqlite3, statistics, string, struct, subprocess, sys, tempfile
import textwrap, threading, time, timeit, tokenize, traceback, types, typing, unicodedata, unittest
import urllib.parse, uuid, weakref, zlib, zoneinfo, bz2, lzma, ctypes, asyncio, concurrent.futures
import multiprocessing, socket, ssl, email.message, xml.etree.ElementTree, http.client
"""
        "def add(a, b):\n    return a + b",
        ADDS,
    ),
    honest(
        "library_late_import",
        "imports inside a call",
        """
def digest(text):
    import hashlib
    return hashlib.sha256(text.encode()).hexdigest()[:8]
""",
        ["assert digest('abc') == 'ba7816bf'"],
    ),
    honest(
        "library_heap",
        "heapq and itertools",
        """
import heapq, itertools
def smallest(values, k):
    return heapq.nsmallest(k, itertools.chain(*values))
""",
        ["assert smallest([[5, 1], [3]], 2) == [1, 3]"],
    ),
    honest(
        "library_json_re",
        "json, re and textwrap",
        """
import json, re, textwrap
def keys(text):
    return sorted(k for k in json.loads(textwrap.dedent(text)) if re.match('[a-z]', k))
""",
        ["assert keys(' {\"b\": 1, \"a\": 2, \"C\": 3}') == ['a', 'b']"],
    ),
    honest(
        "library_random",
        "seeded randomness",
        """
import random
def draw(seed):
    return random.Random(seed).randint(1, 6)
""",
        ["import random\nassert draw(7) == random.Random(7).randint(1, 6)"],
    ),
    honest(
        "library_files",
        "a file of its own, in its own directory",
        """
import os, tempfile
def roundtrip(text):
    with open('note.txt', 'w') as file:
        file.write(text)
    with tempfile.NamedTemporaryFile('w+') as other:
        other.write(open('note.txt').read())
        other.seek(0)
        return other.read()
""",
        ["assert roundtrip('abc') == 'abc'"],
    ),
    honest(
        "library_sqlite",
        "a database in memory",
        """
import sqlite3
def total(values):
    db = sqlite3.connect(':memory:')
    db.execute('create table t(v)')
    db.executemany('insert into t values (?)', [(v,) for v in values])
    return db.execute('select sum(v) from t').fetchone()[0]
""",
        ["assert total([1, 2, 3]) == 6"],
    ),
    honest(
        "library_time",
        "sleeps a little and measures",
        """
import time
def wait():
    start = time.perf_counter()
    time.sleep(0.05)
    return time.perf_counter() - start >= 0.04
""",
        ["assert wait() is True"],
    ),
    honest(
        "library_memory",
        "needs some memory and gives it back",
        "def total(n):\n    return sum([1] * n)",
        ["assert total(3_000_000) == 3_000_000"],
    ),
    honest(
        "library_busy",
        "works for a good part of a second",
        """
def count(n):
    total = 0
    for i in range(n):
        total += i & 1
    return total
""",
        ["assert count(3_000_000) == 1_500_000"],
    ),
    honest(
        "library_big_data",
        "takes and returns a long list",
        "def double(values):\n    return [2 * value for value in values]",
        ["values = list(range(50_000))\nassert double(values) == [2 * v for v in values]"],
    ),
    honest(
        "library_dunder_name",
        "reads its own name and file politely",
        """
NAME = __name__
def add(a, b):
    return a + b if isinstance(NAME, str) else None
""",
        ADDS,
    ),
    honest(
        "library_logging",
        "logs",
        """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
logger = logging.getLogger(__name__)
def add(a, b):
    logger.info('adding')
    print('note', file=sys.stderr)
    return a + b
""",
        ADDS,
    ),
]

PARTS: list[Entry] = [
    honest(
        "part_half",
        "right for positive numbers alone",
        "def magnitude(n):\n    return n",
        ["assert magnitude(1) == 1", "assert magnitude(-1) == 1"],
        0.5,
    ),
    honest(
        "part_third", "right once of three", "def add(a, b):\n    return 3", [*ADDS, "assert add(5, 5) == 10"], 1 / 3
    ),
    honest(
        "part_raises",
        "raises for one argument of four",
        "def inverse(n):\n    return 1 / n",
        ["assert inverse(1) == 1", "assert inverse(2) == 0.5", "assert inverse(4) == 0.25", "assert inverse(0) == 0"],
        0.75,
    ),
    honest(
        "part_missing_name",
        "one of two functions",
        "def add(a, b):\n    return a + b",
        ["assert add(1, 2) == 3", "assert sub(1, 2) == -1"],
        0.5,
    ),
    honest(
        "part_stdio",
        "right for one of two inputs",
        "print(sorted(input()) and input.__name__ and 6)",
        [{"input": "3\n", "expected": "6\n"}, {"input": "10\n", "expected": "20\n"}],
        0.5,
    ),
    honest("part_call", "two of three expressions", ADD, ["add(1, 2) == 3", "add(1, 1) == 2", "add(2, 2) == 5"], 2 / 3),
    honest(
        "part_mixed",
        "forms together, one of them wrong",
        ADD,
        [
            "assert add(1, 2) == 3",
            "add(2, 2) == 4",
            {
                "check": """\
def check(candidate):
    assert candidate(0, 0) == 1

""",
                "entry_point": "add",
            },
            """\
def check(candidate):
    assert candidate(1, 1) == 2

check(add)
""",
        ],
        0.75,
    ),
]
