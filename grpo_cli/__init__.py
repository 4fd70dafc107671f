"""The command line of grpo: parse, call, render."""
