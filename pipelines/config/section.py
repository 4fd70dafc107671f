"""What every part of the configuration is: frozen, strict about types, and closed to unknown keys."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys.

    Strict: "true" is no boolean, true is no number, 1.0 is no whole number; a whole number may stand for a float.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
