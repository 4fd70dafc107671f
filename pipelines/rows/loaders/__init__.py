"""Kinds of sources: each cuts what it reads into chunks, and makes rows of a chunk wherever it is asked to."""
