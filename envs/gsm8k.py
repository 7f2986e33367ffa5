r"""GSM8K: word problems with one number as the answer, compared exactly.

Rows ``{"question", "answer"}``; the answer's last line is ``#### 72``. Rewards: right 1, wrong 0,
no number in a ``\boxed{}`` -1.
"""

from envs.numeric import NumberEnv


class GSM8K(NumberEnv):
    """Word problems from school mathematics."""

    name = "gsm8k"
    example_line = '{"question": "What is 2 + 3?", "answer": "2 + 3 = 5\\n#### 5"}'
    fetched = True
