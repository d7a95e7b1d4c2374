"""How fast shapes are: figures that go together, in a table."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spacy_vaner.errors import VanerError
from spacy_vaner.training.config import PretrainConfig
from spacy_vaner.training.speed import measure_speed, parse_shape, speed_table


def test_every_shape_gets_a_line_with_figures_that_go_together(
    make_config: Callable[..., PretrainConfig],
) -> None:
    config = make_config(n_threads=1)
    shapes = [parse_shape("32x1x2x64"), parse_shape("64x2x2x128")]
    rate, (small, large) = measure_speed(config, shapes, n_steps=1)
    # Without embeddings: attention, feed-forward, two norms per layer, the last norm.
    assert small.n_parameters == 4 * 32**2 + 3 * 32 * 64 + 3 * 32
    assert small.n_embeddings == 600 * 32
    assert large.n_parameters == 2 * (4 * 64**2 + 3 * 64 * 128 + 2 * 64) + 64
    for one in (small, large):
        assert one.training < one.reading
        # One forward pass: two per multiplication and addition, attention over 32 subwords.
        hidden, layers = map(int, one.shape.split("x")[:2])
        flops = 2 * (one.n_parameters + 2 * 32 * hidden * layers)
        assert one.reading_share == pytest.approx(one.reading * flops / rate, rel=1e-6)
    page = speed_table(config, rate, [small, large])
    assert page.count("\n| 32x1x2x64 | 0.0 million |") == 1 and "1 threads" in page


@pytest.mark.parametrize("shape", ["384", "384x4x6x", "axbxcxd"])
def test_a_shape_that_is_none_is_refused(shape: str) -> None:
    with pytest.raises(VanerError, match=f"VE520.*{shape}"):
        parse_shape(shape)
