"""`grpo doctor`: is everything here that a run needs? Text to paste into an issue."""

import typer

from grpo_cli.options import ConfigFiles, Json, Overrides, Quiet, Verbose
from grpo_cli.output import Output

MARKS = {"ok": "ok", "info": "-", "warning": "!", "broken": "BROKEN"}


def doctor(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Check the installation; prints text to paste into an issue.

    Exits with 1 if something essential is broken.
    """
    from pipelines.checkup import Finding, checkup
    from pipelines.config import ExperimentConfig
    from pipelines.config.loader import load

    def loaded() -> tuple[ExperimentConfig, list[str]]:
        result = load(config, overrides)
        return result.config, result.warnings

    out = Output(json, quiet, verbose)

    def line(finding: Finding) -> None:
        out.data(f"{MARKS[finding.verdict]:<7} {finding.topic:<18} {finding.value}")
        if finding.hint:
            out.data(f"{'':<26} {finding.hint}")

    findings: list[Finding] = []
    for finding in checkup(loaded):
        findings.append(finding)
        if not json:
            line(finding)
    broken = [finding for finding in findings if finding.verdict == "broken"]
    if json:
        out.data({"healthy": not broken, "findings": findings})
    elif not broken:
        out.note("nothing essential is broken")
    if broken:
        raise typer.Exit(1)
