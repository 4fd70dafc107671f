"""Every answer that must earn nothing, or exactly what it honestly solves, and leave nothing behind."""

from sandbox_corpus import Entry
from sandbox_corpus_escapes import DAEMONS, PROCESSES
from sandbox_corpus_exhaustion import BOMBS, LOOPS
from sandbox_corpus_floods import EXITS, FLOODS
from sandbox_corpus_forgeries import FORGERIES
from sandbox_corpus_lies import EQUALITY, GADGETS
from sandbox_corpus_malformed import SYNTAX, TEXTS, WRONG
from sandbox_corpus_outside import FILES, NETWORK
from sandbox_corpus_patches import PATCHES
from sandbox_corpus_peeks import PEEKS

FAMILIES: dict[str, list[Entry]] = {
    "wrong": WRONG,
    "syntax": SYNTAX,
    "text": TEXTS,
    "equality": EQUALITY,
    "gadgets": GADGETS,
    "patches": PATCHES,
    "peeks": PEEKS,
    "forgeries": FORGERIES,
    "exits": EXITS,
    "floods": FLOODS,
    "loops": LOOPS,
    "bombs": BOMBS,
    "daemons": DAEMONS,
    "processes": PROCESSES,
    "files": FILES,
    "network": NETWORK,
}
HOSTILE: list[Entry] = [entry for family in FAMILIES.values() for entry in family]
