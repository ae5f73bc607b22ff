"""The page on masks: what it lists is there, and its own mask runs everywhere."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jattn import attend, masks

PAGE = (Path(__file__).parents[2] / "docs" / "masks.md").read_text()


def test_the_table_lists_every_maker():
    listed = set(re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE))
    makers = {name for name in masks.__all__ if name.islower()} - {
        "as_mask",
        "band",
        "query_offset",
    }
    assert listed == makers


@pytest.mark.parametrize("implementation", ["blockwise", "pallas"])
def test_the_mask_of_the_page_runs(implementation):
    made: dict[str, Any] = {"__name__": "page"}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], made)  # type: ignore[index]
    mask = made["Diagonals"](step=3, far=150) & masks.prefix(250)
    t = 300
    q, k, v = (jax.random.normal(jax.random.key(i), (1, t, 2, 8)) for i in range(3))
    back = np.arange(t)[:, None] - np.arange(t)
    values = (back >= 0) & (back <= 150) & (back % 3 == 0) & (np.arange(t) < 250)
    np.testing.assert_array_equal(mask.dense(t, t)[0, 0], values)
    assert (mask.tiles(t, t, 32, 32) == masks.EMPTY).sum() > 40
    out = attend(q, k, v, mask=mask, implementation=implementation)
    want = attend(q, k, v, mask=values, implementation="reference")
    np.testing.assert_allclose(out, want, atol=3e-6)
