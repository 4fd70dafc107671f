"""Answers that do what was asked, in every way that people and models write them: each earns what it is worth."""

from sandbox_corpus import Entry
from sandbox_corpus_forms import FORMS
from sandbox_corpus_idioms import IDIOMS
from sandbox_corpus_language import LANGUAGE
from sandbox_corpus_layouts import LAYOUTS
from sandbox_corpus_library import LIBRARY, PARTS
from sandbox_corpus_values import VALUES

HONEST: list[Entry] = [*LANGUAGE, *VALUES, *IDIOMS, *LIBRARY, *FORMS, *LAYOUTS, *PARTS]
