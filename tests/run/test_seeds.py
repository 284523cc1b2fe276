from __future__ import annotations

import pytest
import torch

from equivox.run.seeds import draw_beta, draw_chance, draw_uniform, generator_for, seed_for, seeded


def test_a_seed_depends_on_every_part_of_its_name() -> None:
    seeds = {
        seed_for(0, "augment", 1, 2),
        seed_for(1, "augment", 1, 2),
        seed_for(0, "order", 1, 2),
        seed_for(0, "augment", 2, 1),
        seed_for(0, "augment", 12),
    }
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_is_the_same_on_every_machine() -> None:
    assert seed_for(0, "augment", 1, 2) == 5797026328756526266


def test_beta_has_its_moments() -> None:
    generator = generator_for(0, "beta")
    draws = torch.tensor([draw_beta(0.2, 0.2, generator=generator) for _ in range(4000)])
    assert float(draws.mean()) == pytest.approx(0.5, abs=0.02)
    # variance of Beta(a, a): 1 / (4 (2 a + 1))
    assert float(draws.var()) == pytest.approx(1 / 5.6, abs=0.01)


def test_chance_and_uniform_keep_their_bounds(generator: torch.Generator) -> None:
    assert sum(draw_chance(0.25, generator=generator) for _ in range(4000)) == pytest.approx(1000, abs=100)
    draws = [draw_uniform(-2.0, 3.0, generator=generator) for _ in range(2000)]
    assert -2.0 <= min(draws) < -1.9
    assert 2.9 < max(draws) <= 3.0


def test_beta_refuses_parameters_it_would_be_slow_for(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="0, 1"):
        draw_beta(2.0, 0.2, generator=generator)


def test_what_knows_no_generator_draws_by_the_seed_and_nobody_after_it_notices() -> None:
    before = torch.get_rng_state()
    with seeded(3, "weights"):
        first = torch.nn.Linear(4, 4).weight
    with seeded(3, "weights"):
        again = torch.nn.Linear(4, 4).weight
    with seeded(3, "run"):
        other = torch.nn.Linear(4, 4).weight
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
