"""Every model of the zoo is exported for any number of rows and, rewritten, gives the scores of the original.

Small configurations and computation in float64: a law that is wrong anywhere shows in the ninth digit. Checked is every
plan that `optimize` has to choose from, not only the cheapest: small models are often best left unchanged.
"""

from collections.abc import Callable

import pytest
import torch
from tiny_zoo import tiny
from torch import Tensor, nn

from rankopt.pipeline import build, capture_with_roles
from rankopt.plan import alternatives
from rankopt.requests import Request, tile
from rankopt.zoo import ENTRIES, Schema

DrawRows = Callable[..., dict[str, Tensor]]

ROWS = 12
CANDIDATES = 512
MEASURED = (1, 23)


def request(schema: Schema, draw_rows: DrawRows, candidates: int) -> Request:
    rows = {f"features.{name}": ids for name, ids in draw_rows(schema.fields, candidates, seed=candidates).items()}
    context = {f"features.{name}": rows[f"features.{name}"][:1] for name in schema.context}
    return Request(context, {f"features.{name}": rows[f"features.{name}"] for name in schema.target})


@pytest.mark.parametrize("name", ENTRIES)
def test_every_plan_gives_the_scores_of_the_original(name: str, schema: Schema, draw_rows: DrawRows) -> None:
    torch.manual_seed(0)
    entry = ENTRIES[name]
    model = entry.model(schema, tiny(entry.config)).double().eval()
    for table in model.modules():
        if isinstance(table, nn.Embedding):
            nn.init.normal_(table.weight)
    context = [f"features.{name}" for name in schema.context]
    features = draw_rows(schema.fields, ROWS)
    shapes = ({name: {0: torch.export.Dim("R")} for name in features},)
    program = torch.export.export(model, (features,), dynamic_shapes=shapes, strict=False)
    captured, roles = capture_with_roles(program, context, None, None)
    rankers = {plan.policy.name: build(captured, roles, plan) for plan in alternatives(captured, roles, CANDIDATES)}
    for candidates in MEASURED:
        given = request(schema, draw_rows, candidates)
        rows = {path.removeprefix("features."): ids for path, ids in tile(roles, given).items()}
        with torch.no_grad():
            expected = model(rows)
            torch.testing.assert_close(program.module()(rows), expected)
            tolerance = 1e-9 * float(expected.abs().max())
            for policy, ranker in rankers.items():
                scores = ranker(given.context, given.target)
                torch.testing.assert_close(scores, expected, rtol=0, atol=tolerance, msg=f"{policy}, {candidates}")
