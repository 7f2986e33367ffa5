"""A model whose answers a test writes, and plans to play with it."""

import asyncio

from rise.policies.policy import Policy, PolicyError, Sample
from rise.rollout.plan import Plan


class Scripted(Policy):
    """Answers with `script(task_id, turn, i)`, a text or an error; keeps what it was asked."""

    name = "scripted"

    def __init__(self, script):
        self.script = script
        self.asked = []
        self.closed = 0
        self.in_flight = self.most_in_flight = 0

    async def sample(self, messages, *, n, seed, temperature, top_p, max_new_tokens, problem):
        self.asked.append({"messages": messages, "n": n, "seed": seed, "problem": problem})
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        turn = sum(message["role"] == "assistant" for message in messages)
        texts = [self.script(problem["task_id"], turn, i) for i in range(n)]
        for text in texts:
            if isinstance(text, PolicyError):
                raise text
        return [Sample(text, "stop", 10, 4) for text in texts]

    async def check(self):
        pass

    async def close(self):
        self.closed += 1


def plan_of(policy, turns, samples=None, **changes):
    return Plan(
        policies=[policy] * turns,
        num_of_samples=samples or [1] * turns,
        temperature=[1.0] * turns,
        max_new_tokens=[64] * turns,
        **changes,
    )
