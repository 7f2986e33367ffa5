"""Ask the server of serve.py as several clients do, and compare what they count: one line each.

    python scripts/clients/ask.py --directory log/clients --clients litellm lm_eval

Reads   --directory: server.json, as serve.py writes it.
Writes  there: tasks/ and the caches and logs of the clients.
"""

import argparse
import json
import logging
import os
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

BOX = r"\\boxed\{([^}]*)\}"
KEY = "key"


def check(what: str, holds: bool) -> None:
    if not holds:
        raise AssertionError(what)


def ask_litellm(server: dict[str, Any], _: Path) -> str:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.suppress_debug_info = True
    problem, address = server["problems"][0], {"api_base": server["base_url"], "api_key": KEY}
    chat = {**address, "model": f"openai/{server['model']}", "max_tokens": 64, "temperature": 0}
    right = 0
    for one in server["problems"]:
        reply = litellm.completion(**chat, messages=one["messages"])
        right += f"\\boxed{{{one['target']}}}" in reply.choices[0].message.content
    m1_t1 = right / len(server["problems"])
    check("m1@t1", m1_t1 == server["m1_t1"])
    asked = {**chat, "messages": problem["messages"]}
    sampled = {"temperature": 1, "n": 2, "seed": 5, "presence_penalty": 0.5}
    whole = litellm.completion(**asked | sampled, logprobs=True, top_logprobs=2)
    check("logprobs", all(choice.logprobs.content for choice in whole.choices))
    chunks = [chunk for chunk in litellm.completion(**asked, stream=True) if chunk.choices]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    check("a stream's text", text == problem["answer"])
    completed = chat | {"model": f"text-completion-openai/{server['model']}"}
    done = litellm.text_completion(**completed, prompt=problem["prompt"])
    check("a completion", done.choices[0].text == problem["answer"])
    long = [{"role": "user", "content": "word " * 4000}]
    for kind, changed in (
        (litellm.ContextWindowExceededError, {"messages": long}),
        (litellm.NotFoundError, {"model": "openai/other"}),
    ):
        try:
            litellm.completion(**asked | changed)
        except kind:
            continue
        check(kind.__name__, False)
    return f"m1@t1 {m1_t1:.3f}, n, logprobs, streams, completions, errors"


def ask_inspect_ai(server: dict[str, Any], directory: Path) -> str:
    import inspect_ai
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, get_model
    from inspect_ai.scorer import pattern
    from inspect_ai.solver import generate

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser}
    samples = [
        Sample(
            input=[kinds[m["role"]](content=m["content"]) for m in one["messages"]],
            target=one["target"],
        )
        for one in server["problems"]
    ]
    task = inspect_ai.Task(dataset=MemoryDataset(samples), solver=generate(), scorer=pattern(BOX))
    name = f"openai-api/rise/{server['model']}"
    model = get_model(name, base_url=server["base_url"], api_key=KEY)
    sampling = {"temperature": 0.0, "max_tokens": 64}
    quiet = {"display": "none", "log_dir": str(directory / "inspect")}
    (log,) = inspect_ai.eval(task, model=model, **sampling, **quiet)
    check(f"status {log.status}: {log.error}", log.status == "success")
    accuracy = log.results.scores[0].metrics["accuracy"].value
    check("m1@t1", accuracy == server["m1_t1"])
    return f"accuracy {accuracy:.3f}"


def ask_lm_eval(server: dict[str, Any], directory: Path) -> str:
    """Generation through both APIs, and log-likelihoods beside those of the harness's own model."""
    # The data set's cache is the run's own.
    os.environ["HF_DATASETS_CACHE"] = str(directory / "datasets")
    os.environ["OPENAI_API_KEY"] = KEY
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    tasks = directory / "tasks"
    write_tasks(tasks, server)
    system = next((m["content"] for m in server["problems"][0]["messages"][:-1]), None)

    def run(model: str, args: dict[str, Any], task: str, **more: Any) -> dict[str, Any]:
        manager = TaskManager(include_path=str(tasks), include_defaults=False)
        more |= {"task_manager": manager, "bootstrap_iters": 0, "verbosity": "ERROR"}
        found = simple_evaluate(model=model, model_args=args, tasks=[task], **more)
        return {"samples": found["samples"][task], **found["results"][task]}

    api = {"model": server["model"], "num_concurrent": 4, "max_retries": 1}
    completions = {**api, "base_url": f"{server['base_url']}/completions"}
    completions["tokenizer"] = server["checkpoint"]
    chats = {**api, "base_url": f"{server['base_url']}/chat/completions"}
    asked = {"apply_chat_template": True, "system_instruction": system}
    text = run("local-completions", completions, "rise_text")["exact_match,box"]
    chat = run("local-chat-completions", chats, "rise_chat", **asked)["exact_match,box"]
    check(f"m1@t1 {server['m1_t1']}: {text}, {chat}", text == chat == server["m1_t1"])
    ours = run("local-completions", {**completions, "batch_size": 4}, "rise_choice")
    own = {"pretrained": server["checkpoint"], "device": "cpu", "dtype": "float32"}
    theirs = run("hf", own, "rise_choice")
    check("acc", ours["acc,none"] == theirs["acc,none"])
    pairs = zip(likelihoods(ours), likelihoods(theirs), strict=True)
    apart = max(abs(a - b) for a, b in pairs)
    check(f"log-likelihoods {apart} apart", apart < 1e-3)
    return (
        f"exact match {text:.3f} by local-completions, {chat:.3f} by local-chat-completions; "
        f"multiple choice {ours['acc,none']:.3f}, log-likelihoods within {apart:.1e} of model hf"
    )


def likelihoods(result: dict[str, Any]) -> list[float]:
    rows = sorted(result["samples"], key=lambda row: row["doc_id"])
    return [float(one[0][0]) for row in rows for one in row["resps"]]


def write_tasks(tasks: Path, server: dict[str, Any]) -> None:
    """Three tasks on the problems: as chats, as prompts, and as a choice of three answers."""
    tasks.mkdir(exist_ok=True)
    rows = []
    for one in server["problems"]:
        numbers = [str(int(one["target"]) + more) for more in (1, 0, 7)]
        row = {"question": one["messages"][-1]["content"]} | {
            k: one[k] for k in ("prompt", "target")
        }
        choices = [f"The answer is \\boxed{{{number}}}." for number in numbers]
        rows.append(row | {"choices": choices})
    data = tasks / "problems.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "target_delimiter": "",
    }
    box = {"function": "regex", "regex_pattern": BOX}
    generated = {
        **common,
        "output_type": "generate_until",
        "doc_to_target": "{{target}}",
        "generation_kwargs": {"until": ["\n\n"], "temperature": 0, "max_gen_toks": 64},
        "filter_list": [{"name": "box", "filter": [box, {"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match"}],
    }
    chosen = {
        **common,
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "doc_to_target": 1,
        "metric_list": [{"metric": "acc"}],
    }
    for name, task in {
        "rise_chat": {**generated, "doc_to_text": "{{question}}"},
        "rise_text": {**generated, "doc_to_text": "{{prompt}}"},
        "rise_choice": {**chosen, "doc_to_text": "{{prompt}}"},
    }.items():
        # JSON is YAML.
        (tasks / f"{name}.yaml").write_text(json.dumps({"task": name, **task}, indent=1))


CLIENTS = {"litellm": ask_litellm, "inspect_ai": ask_inspect_ai, "lm_eval": ask_lm_eval}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--directory", type=Path, required=True, help="where server.json is")
    parser.add_argument(
        "--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS), help="who asks (all)"
    )
    args = parser.parse_args()
    directory = args.directory.absolute()
    server = json.loads((directory / "server.json").read_text())
    print(f"workflow_eval.py: m1@t1 {server['m1_t1']:.3f}", flush=True)
    logging.disable(logging.WARNING)
    failed = 0
    for name in args.clients:
        try:
            said = CLIENTS[name](server, directory)
        except Exception as error:
            failed += 1
            said = f"FAILED: {type(error).__name__}: {error}"
            traceback.print_exc()
        print(f"{name} {version(name)}: {said}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
