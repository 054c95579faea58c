"""The same model gives the same stages, byte for byte, in another process with another order of sets."""

from __future__ import annotations

import os
import subprocess
import sys

MODEL = """
import torch
from torch import nn
from rankopt.capture import capture
from rankopt.pipeline import build
from rankopt.plan import POLICIES, interpret
from rankopt.selectors import InputRole, Role

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.mlp, self.norm = nn.Embedding(20, 4), nn.Linear(28 + 15, 1), nn.LayerNorm(28)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, user, item, ids):
        x = torch.cat([self.table(ids), user.view(-1, 1, 4), item], 1)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        i, j = torch.triu_indices(7, 7, 1)[:, :15]
        pairs = torch.bmm(x, x.mT)[:, i, j]
        return self.mlp(torch.cat([self.norm(x.flatten(1)), pairs], 1)).sigmoid()

torch.manual_seed(0)
captured = capture(Model().eval(), (torch.randn(5, 4), torch.randn(5, 2, 4), torch.randint(0, 20, (5, 4))))
roles = [InputRole("user", Role.CONTEXT), InputRole("item", Role.TARGET), InputRole("ids", Role.PACKED, (0, 3), (1, 2))]
for policy in POLICIES:
    stages = build(captured, roles, interpret(captured, roles, 64, policy)).stages
    for stage in (stages.weight_stage, stages.context_stage, stages.candidate_stage, stages.whole):
        print(policy.name, stage.code, stages.state, stages.prepared)
"""


def test_two_processes_write_the_same_code() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MODEL],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("0", "4711")
    ]
    first, second = (process.communicate(timeout=300)[0] for process in processes)
    assert all(process.returncode == 0 for process in processes)
    assert first.count("def forward") == second.count("def forward") > 10
    assert first == second
