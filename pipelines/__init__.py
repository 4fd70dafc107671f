"""The whole domain of grpo: stages on top, rooms below (imports go down only)."""
