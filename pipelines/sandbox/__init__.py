"""Running model-written code behind isolation layers (standard library only)."""
