"""Benchmarks of lm-evaluation-harness on any checkpoint, hub name or adapter folder.

    python src/exec/run_benchmarks.py --suite smoke
    python src/exec/run_benchmarks.py --overall.model_name files/results/demo/checkpoints --suite r2mu --plan
    python src/exec/run_benchmarks.py --overall.model_name Qwen/Qwen3-1.7B --tasks gsm8k_thinking --limit 50

Writes files/results/<logger.name>/lm_eval/. The same command resumes after an interruption and repeats tasks
that have changed. Several GPUs: accelerate launch src/exec/run_benchmarks.py ... The suites are listed in
lm-evaluation-harness/suites.yaml, the data of each task in docs/benchmarks.md.
"""

import sys

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import UserError
from .script import Script, run_script

SHORT = {
    "--suite": "benchmarks.suite",
    "--tasks": "benchmarks.tasks",
    "--data_dir": "benchmarks.data_dir",
    "--limit": "benchmarks.limit",
    "--plan": "benchmarks.plan=true",
    "--published": "benchmarks.published=true",
    "--no-samples": "benchmarks.samples=false",
    "--allow-failed": "benchmarks.allow_failed=true",
}


def rules(settings) -> list[str]:
    found = []
    if not settings.benchmark_tasks:
        found.append("nothing to run: set --suite (smoke, wmdp, utility, ...) or --tasks")
    if settings.method.trains:
        found.append(
            f"unlearn.unlearn_method is {settings.method.name}, which trains; benchmarks need origin (set"
            " overall.model_name to the checkpoint)"
        )
    if settings.overall.logger == "none" and not settings.benchmarks.plan:
        found.append("overall.logger none: benchmarks need a run folder; set json")
    return found


def run(settings) -> None:
    from ..model.benchmarks.benchmark_folder import run_benchmarks, show_outcomes, show_plan

    if settings.benchmarks.plan:
        return show_plan(settings)
    found, folder = run_benchmarks(settings)
    if found is None:  # all but the first of several processes
        return None
    if not settings.overall.quiet:
        show_outcomes(found, folder)
    failed = [outcome.task for outcome in found if outcome.status == "error"]
    if failed and not settings.benchmarks.allow_failed:
        raise UserError(
            f"{len(failed)} of {len(found)} tasks failed ({', '.join(failed)}); --allow-failed accepts that"
        )
    return None


def main(argv: list[str] | None = None) -> int:
    script = Script(
        __doc__,
        run,
        {"dataset": {"forget_dataset_name": "Fictional_forget10"}},  # unused: rows come with the tasks
        rules,
        "interrupted; the same command resumes with the remaining tasks",
        SHORT,
    )
    return run_script(argv, script)


if __name__ == "__main__":
    sys.exit(main())
