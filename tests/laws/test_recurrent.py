"""Recurrent cells split like the linear layers that they are made of."""

from __future__ import annotations

import torch
from laws.harness import Case, law_tests
from torch import nn

gru = {"cell": nn.GRUCell(4, 4)}
plain = {"cell": nn.GRUCell(4, 4, bias=False)}
lstm = {"cell": nn.LSTMCell(4, 4)}

CASES = [
    Case("recurrent.gru_cell", lambda c, t, cell: cell(c[:, 0], t[:, 0]), once="mm", given=gru),
    Case("recurrent.gru_cell", lambda c, t, cell: cell(t[:, 0], c[:, 0]), given=plain),
    Case("recurrent.gru_cell", lambda c, t, cell: cell(c[:, 0], c[:, 1]) * t[:, 0], once="tanh", given=gru),
    Case("recurrent.gru_cell", lambda c, t, cell: cell(torch.cat([c, t], 1).view(-1, 4)).view(-1, 5, 4), given=gru),
    Case("recurrent.lstm_cell", lambda c, t, cell: cell(t[:, 0], (c[:, 0], c[:, 1]))[0], once="mm", given=lstm),
    Case("recurrent.lstm_cell", lambda c, t, cell: sum(cell(c[:, 0], (t[:, 0], t[:, 1]))), given=lstm),
]

test_cases = law_tests(CASES)
