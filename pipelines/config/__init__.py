"""The configuration: one file per section, and the loader."""
