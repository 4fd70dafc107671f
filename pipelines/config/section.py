"""What every part of the configuration is: frozen, strict about types, and closed to unknown keys."""

import os
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Directory = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]
"""A path of our own making, its leading `~` replaced: a directory of that name is nobody's wish."""


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys.

    Strict: "true" is no boolean, true is no number, 1.0 is no whole number; a whole number may stand for a float.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
