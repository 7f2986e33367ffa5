"""Run directories of workflow_eval.py, written from episodes in shorthand."""

from pathlib import Path
from typing import Any

from rise.episodes.journal import RunDir
from rise.episodes.shorthand import sketch


def open_run_dir(log_dir: Path, config: dict[str, Any], max_turns: int) -> RunDir:
    """A run directory that is checked and started, as by a call of a stage."""
    run = RunDir.find(log_dir, max_turns)
    run.check(config)
    run.start(config)
    return run


def write_run(directory: Path, *problems: str, **settings) -> Path:
    """A finished evaluation on GSM8K written in the shorthand of `rise.episodes.shorthand`."""
    episodes = sketch(*problems)
    longest = max(episodes, key=lambda episode: len(episode.turns))
    turns = len(longest.turns)
    config = {
        "stage": "eval",
        "env": "gsm8k",
        "env_sha256": "e",
        "data_sha256": "d",
        "prompt_sha256": "p",
        "problems": len(episodes),
        "models": ["sketch"] * turns,
        "kinds": ["function"] * turns,
        "fingerprints": ["f"] * turns,
        "temperature": [1.0] * turns,
        "max_new_tokens": [64] * turns,
        "num_of_samples": [len(turn.actions) for turn in longest.turns],
        "top_p": 1.0,
        "context_window": None,
        "shown_attempt": "own",
        "seed": 0,
        "feedback": "none",
        "max_turns": turns,
    }
    with open_run_dir(directory, config | settings, turns) as run:
        for episode in episodes:
            for turn in episode.turns:
                turn.usage = {"prompt_tokens": 10, "completion_tokens": 4 * len(turn.actions)}
            run.append(episode)
        run.write_log()
        run.write_summary({"metrics": {}})
        return run.path
