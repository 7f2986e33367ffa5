"""What several evaluations show beside each other: the paper's table, paired tests, the cost.

Gains are differences to m1@t1 of the same run, as in the paper's tables. Tests between two runs are
paired over the problems that both have finished; their p values are not corrected for the number
of comparisons.
"""

from collections.abc import Sequence
from typing import Any

from rise.episodes.episode import Episode
from rise.metrics.evaluation import EvaluatedRun
from rise.metrics.statistics import paired
from rise.metrics.tables import fresh_differences, headline_order

SETTINGS = """
env env_sha256 prompt_sha256 more_prompts_sha256 data_sha256 temperature top_p max_new_tokens
context_window feedback revise_if_wrong shown_attempt seed
""".split()
"""Settings in which runs are expected to agree; where they do not, the comparison says so. The
prompts count by their texts, and a plug-in, whose file grades the answers, by its content."""


def compare(runs: Sequence[EvaluatedRun]) -> dict[str, Any]:
    """The comparison as JSON.

    Keys: "runs", per run its "name", "path", "model", "n", headline rates ("metrics"), "gains" over
    its own m1@t1, "paired" differences between its own votes, "fresh_draw", turn 2 minus a fresh
    draw of turn 1 where there are further samples, and "cost" per problem; "tests",
    each run after the first against the first, per metric that both have: a difference with
    interval, n and McNemar's "p_value"; "notes", sentences about what differs besides the models.
    """
    _check(runs)
    return {
        "runs": [_describe(run) for run in runs],
        "tests": [_against(run, runs[0]) for run in runs[1:]],
        "notes": _notes(runs),
    }


def cost(episodes: Sequence[Episode], turns: bool) -> dict[str, float]:
    """Samples and tokens per problem of a vote: over the turns, or over the samples of turn 1.

    A rollout goes on with one sample of each turn, so where a turn has several, it is charged an
    equal share of what they generated. Prompt tokens count once per turn; a server that keeps its
    cache computes fewer. What a model says of its own answer costs tokens and is no sample; an
    answer that stands costs nothing.

    >>> run = sketch("w7,r5 r5")
    >>> run[0].turns[0].usage = {"prompt_tokens": 100, "completion_tokens": 60}
    >>> run[0].turns[1].usage = {"prompt_tokens": 150, "completion_tokens": 20}
    >>> cost(run, turns=True)
    {'samples': 2.0, 'prompt_tokens': 250.0, 'completion_tokens': 50.0}
    >>> cost(run, turns=False)
    {'samples': 2.0, 'prompt_tokens': 100.0, 'completion_tokens': 60.0}
    """
    totals = {"samples": 0.0, "prompt_tokens": 0.0, "completion_tokens": 0.0}
    for episode in episodes:
        for turn in episode.turns if turns else episode.turns[:1]:
            share = 1 / len(turn.actions) if turns else 1
            check = turn.check["usage"] if turns and turn.check else {}
            totals["samples"] += 0 if turn.kept else share * len(turn.actions)
            for name in ("prompt_tokens", "completion_tokens"):
                part = 1 if name == "prompt_tokens" else share
                totals[name] += part * turn.usage.get(name, 0) + check.get(name, 0)
    return {name: total / len(episodes) for name, total in totals.items()}


def _check(runs: Sequence[EvaluatedRun]) -> None:
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} run to compare: give two or more run directories")
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"two runs have the same name in {names}: give --names")
    first = runs[0]
    for run in runs[1:]:
        shared = first.queries.keys() & run.queries.keys()
        if not shared:
            raise ValueError(f"{first.path} and {run.path} have no finished problem in common")
        for task_id in sorted(shared):
            if first.queries[task_id] != run.queries[task_id]:
                raise ValueError(
                    f"problem {task_id} of {first.path} is not that of {run.path}: compare runs "
                    "that were made with the same --data_path"
                )


def _describe(run: EvaluatedRun) -> dict[str, Any]:
    rates = {name: run.metrics[name] for name in sorted(run.hits, key=headline_order)}
    gains = {name: _difference(run.hits[name], run.hits["m1@t1"]) for name in rates}
    gains.pop("m1@t1")
    return {
        "name": run.name,
        "path": str(run.path),
        "model": run.config["models"][0],
        "n": len(run.episodes),
        "metrics": rates,
        "gains": gains,
        "paired": run.metrics["paired"],
        "fresh_draw": fresh_differences(run.metrics),
        "cost": {name: _cost_of(run, name) for name in rates if name.startswith("m")},
    }


def _cost_of(run: EvaluatedRun, metric: str) -> dict[str, float]:
    if metric == "m1@t1":
        first = [Episode(e.task_id, e.query, e.answer, e.turns[:1]) for e in run.episodes]
        return cost(first, turns=True)
    if metric.endswith("@t1"):
        return cost(run.parallel or run.episodes, turns=False)
    return cost(run.episodes, turns=True)


def _against(run: EvaluatedRun, first: EvaluatedRun) -> dict[str, Any]:
    shared = [name for name in sorted(run.hits, key=headline_order) if name in first.hits]
    return {
        "run": run.name,
        "against": first.name,
        "metrics": {name: _difference(run.hits[name], first.hits[name]) for name in shared},
    }


def _difference(a: dict[int, bool], b: dict[int, bool]) -> dict[str, Any]:
    shared = a.keys() & b.keys()
    only_first = sum(a[task_id] and not b[task_id] for task_id in shared)
    only_second = sum(b[task_id] and not a[task_id] for task_id in shared)
    return paired(a, b) | {"only_first": only_first, "only_second": only_second}


def _notes(runs: Sequence[EvaluatedRun]) -> list[str]:
    notes = []
    for key in SETTINGS:
        values = _settings(runs, key)
        if len({str(value) for value in values.values()}) > 1:
            listed = ", ".join(f"{name} {value}" for name, value in values.items())
            notes.append(f"the runs differ in {key}: {listed}")
    sizes = {run.name: len(run.episodes) for run in runs}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        notes.append(f"the runs have finished different numbers of problems: {listed}")
    for run in runs:
        notes += [f"{run.name}: {warning}" for warning in run.metrics["warnings"]]
    return notes


def _settings(runs: Sequence[EvaluatedRun], key: str) -> dict[str, Any]:
    """A setting of each run; of lists over the turns the turns that all runs have count."""
    values = {run.name: run.config.get(key) for run in runs}
    turns = min((len(value) for value in values.values() if isinstance(value, list)), default=0)
    for name, value in values.items():
        if isinstance(value, list):
            common = value[:turns]
            values[name] = common[0] if len(set(common)) == 1 else common
    return values
