"""The trials of a sweep in a journal that several processes share.

One study of optuna for each config. A trial is claimed by a lock that its process holds; the system releases
it when the process dies, so that a trial which is running in the journal and has no holder is an interrupted
one, and the next process takes it over with the runs that it has finished.
"""

import contextlib
import fcntl
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.files import UserError, fingerprint, read_json, write_json
from .search_space import SearchedConfig

SEARCHES = ("tpe", "random", "grid")
RANDOM_TRIALS = 8
"""Trials before TPE has seen enough to model; more would leave little of a small budget."""
BEGUN = "begun"
"""User attribute of a trial whose values are all drawn."""
NUMBER = "number"
"""User attribute: its number among those. Optuna counts the others too."""


@dataclass(frozen=True)
class Ended:
    """A trial that has ended.

    Args:
        config: title of its config.
        number: its number within the config, from 0.
        values: key -> word of the command line.
        state: complete, pruned or failed.
        reason: why it was pruned or failed; else empty.
        figures: metric -> value of each finished run, in the order of the seeds.
    """

    config: str
    number: int
    values: Mapping[str, str]
    state: str
    reason: str
    figures: Sequence[Mapping[str, float | None]]


class Claim:
    """A trial that this process works on."""

    def __init__(self, config: SearchedConfig, study: Any, trial: Any, holder: Any):
        self.config, self.study, self.trial, self.holder = config, study, trial, holder

    @property
    def number(self) -> int:
        return _number(self.trial)

    def release(self) -> None:
        """Let it go, ended or not."""
        self.holder.close()

    @property
    def values(self) -> dict[str, str]:
        return _words(self.config, self.trial.params)


def _number(trial: Any) -> int:
    # A journal that an earlier version began has optuna's numbers alone.
    return trial.user_attrs.get(NUMBER, trial.number)


def _words(config: SearchedConfig, params: Mapping[str, Any]) -> dict[str, str]:
    return {one.key: one.text(params[one.key]) for one in config.dimensions}


class Studies:
    """The studies of a sweep.

    Args:
        root: folder of the sweep.
        configs: what is searched.
        search: one of SEARCHES.
        budget: trials of each config; of a grid all its points.
        seed: decides the drawn values.

    Raises:
        UserError: the space does not fit the search.
    """

    def __init__(self, root: Path, configs: Sequence[SearchedConfig], search: str, budget: int, seed: int):
        self.root, self.configs, self.search, self.budget, self.seed = root, configs, search, budget, seed
        self.claims = root / "claims"

    def open(self) -> None:
        """Open the journal, or begin it. The first process lays down what every search begins with."""
        optuna = _optuna()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.claims.mkdir(parents=True, exist_ok=True)
        with self.alone():
            journal = self.root / "trials.log"
            _drop_half_line(journal)
            lock = JournalLock(self.claims / "journal")
            storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))  # pyright: ignore[reportArgumentType]
            self.studies = {
                one.title: optuna.create_study(
                    storage=storage,
                    study_name=one.title,
                    direction="maximize",
                    load_if_exists=True,
                )
                for one in self.configs
            }
            for one in self.configs:
                study = self.studies[one.title]
                if not study.get_trials(deepcopy=False):
                    for values in self._first(one):
                        study.enqueue_trial(values)

    def _first(self, config: SearchedConfig) -> list[dict[str, Any]]:
        """Values that are tried in any case: every point of a grid, or the config's own."""
        if self.search == "grid":
            import itertools

            return [
                dict(zip((one.key for one in config.dimensions), point))
                for point in itertools.product(*(one.choices for one in config.dimensions))
            ]
        own = {one.key: one.holds(config.initial[one.key]) for one in config.dimensions}
        return [own] if own and None not in own.values() else []

    def size(self, config: SearchedConfig) -> int:
        """Number of trials of a config."""
        if self.search != "grid":
            return self.budget
        count = 1
        for one in config.dimensions:
            count *= len(one.choices)
        return count

    @contextlib.contextmanager
    def alone(self, name: str = "lock") -> Iterator[None]:
        """Hold the sweep's lock, or another of that name; waits for the process that holds it."""
        with (self.claims / name).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def take(self) -> Claim | None:
        """A trial to work on: an interrupted one, or a new one of the config with the fewest; None when all
        are done or others work on them."""
        with self.alone():
            for config in self.configs:
                self._clear_unborn(config)
                for trial in self._running(config):
                    if holder := self._hold(config, _number(trial)):
                        return self._taken_over(config, trial, holder)
            counts = {one.title: len(self._counted(one)) for one in self.configs}
            open_ones = [one for one in self.configs if counts[one.title] < self.size(one)]
            if not open_ones:
                return None
            config = min(open_ones, key=lambda one: counts[one.title])
            return self._ask(config, counts[config.title])

    def _ask(self, config: SearchedConfig, count: int) -> Claim:
        optuna, study = _optuna(), self.studies[config.title]
        # The seed goes by the number, so that an interrupted sweep goes on as if it had not been.
        seed = int(fingerprint(self.seed, config.title, count), 16) % 2**31
        if self.search == "tpe":
            study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)
        else:
            study.sampler = optuna.samplers.RandomSampler(seed=seed)
        trial = study.ask({one.key: one.distribution() for one in config.dimensions})
        trial.set_user_attr(NUMBER, count)
        trial.set_user_attr(BEGUN, True)
        holder = self._hold(config, count)
        assert holder, "the number is new and the sweep's lock is held"
        return Claim(config, study, trial, holder)

    def _taken_over(self, config: SearchedConfig, frozen: Any, holder: Any) -> Claim | None:
        optuna, study = _optuna(), self.studies[config.title]
        return Claim(config, study, optuna.trial.Trial(study, frozen._trial_id), holder)

    def _running(self, config: SearchedConfig) -> list:
        state = _optuna().trial.TrialState
        return self.studies[config.title].get_trials(deepcopy=False, states=(state.RUNNING,))

    def _clear_unborn(self, config: SearchedConfig) -> None:
        """Drop trials whose process was killed before their values were all drawn (a living one draws them
        while it holds the sweep's lock); values that are tried in any case wait again in their place."""
        study, states = self.studies[config.title], _optuna().trial.TrialState
        for trial in self._running(config):
            if trial.user_attrs.get(BEGUN):
                continue
            if trial.system_attrs.get("fixed_params"):
                study._storage.set_trial_state_values(trial._trial_id, states.WAITING)
            else:
                study.tell(trial.number, state=states.FAIL)

    def _counted(self, config: SearchedConfig) -> list:
        """The trials that have drawn their values. Those killed before that, and points still to come, do not
        count."""
        trials = self.studies[config.title].get_trials(deepcopy=False)
        return [trial for trial in trials if trial.user_attrs.get(BEGUN)]

    def _hold(self, config: SearchedConfig, number: int) -> Any:
        """The locked file of a trial; None when another process holds it."""
        file = (self.claims / f"{config.title}-{number}").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def tell(self, claim: Claim, ended: Ended, value: float | None, shortfall: float | None) -> None:
        """Write down how a trial ended.

        Args:
            claim: the trial.
            ended: its state, reason and figures.
            value: what is maximised, for a complete trial.
            shortfall: distance below the floor, at most 0 when it is held.
        """
        states = _optuna().trial.TrialState
        with self.alone():
            claim.trial.set_user_attr("reason", ended.reason)
            claim.trial.set_user_attr("figures", [dict(run) for run in ended.figures])
            if shortfall is not None:
                claim.trial.set_constraint("utility", shortfall)
            state = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[ended.state]
            claim.study.tell(claim.trial, value if ended.state == "complete" else None, state)

    def others_work(self) -> bool:
        """Whether other processes are still at work on trials."""
        with self.alone():
            return any(self._running(config) for config in self.configs)

    def ended(self, only: SearchedConfig | None = None) -> list[Ended]:
        """All trials that have ended, by config and number; of one config where it is named."""
        states = _optuna().trial.TrialState
        names = {states.COMPLETE: "complete", states.PRUNED: "pruned", states.FAIL: "failed"}
        with self.alone():
            return [
                Ended(
                    config.title,
                    _number(trial),
                    _words(config, trial.params),
                    names[trial.state],
                    trial.user_attrs.get("reason", ""),
                    trial.user_attrs.get("figures", []),
                )
                for config in ([only] if only else self.configs)
                for trial in self._counted(config)
                if trial.state in names
            ]

    def importances(self, config: SearchedConfig) -> dict[str, float]:
        """Key -> share of the variance of the score that it explains (fANOVA); empty where there are too few
        complete trials or fewer than two keys."""
        optuna, study = _optuna(), self.studies[config.title]
        complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len(config.dimensions) < 2 or len(complete) < 2 * len(config.dimensions):
            return {}
        if len({trial.value for trial in complete}) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.seed)
        return optuna.importance.get_param_importances(study, evaluator=evaluator)


class JournalLock:
    """Optuna's contract of a lock, held by an open file: the system releases it when the process dies. A lock
    of optuna is a file, which a killed process leaves behind for others to wait for."""

    def __init__(self, path: Path):
        self.path = path

    def acquire(self) -> bool:
        file = self.path.open("a")
        fcntl.flock(file, fcntl.LOCK_EX)
        self.file = file
        return True

    def release(self) -> None:
        self.file.close()


def _drop_half_line(journal: Path) -> None:
    """Cut a last line that a full disk or a kill has cut already: no journal with one within it is read."""
    content = journal.read_bytes() if journal.is_file() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(journal, whole)


BY_CONFIG = ("configs", "space")
"""Parts of a definition, config -> value: each config is searched on its own, so they may come and go."""


def keep_definition(root: Path, definition: Mapping[str, Any]) -> None:
    """Write down what a sweep searches. UserError where the folder holds another sweep: its trials would be
    compared with those of this one."""
    path = root / "sweep.json"
    there = read_json(path) if path.is_file() else dict(definition)
    if other := [key for key in definition if not _continues(key, there.get(key), definition[key])]:
        raise UserError(
            f"{root}: holds a sweep with another {', '.join(other)}; choose another --name, or give the same"
        )
    write_json(path, there | {key: there[key] | definition[key] for key in BY_CONFIG})


def _continues(key: str, there: Any, now: Any) -> bool:
    """Whether a part of a definition is as it was, for the configs that it was given for."""
    if key in BY_CONFIG and isinstance(there, dict):
        return all(there.get(config, value) == value for config, value in now.items())
    return there == now


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("sweep.py needs optuna: pip install 'unlearnkit[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
