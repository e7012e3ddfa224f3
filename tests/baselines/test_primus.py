import numpy as np
import pytest
import torch

from baselines.primus import Primus
from tests.baselines.primus import PATCH, assert_near, authors_primus, random_state, recomputed

WIDTHS = [(144, 2), (132, 2)]  # heads of 72 and of 66 channels, as COLIPRI's and nnFoundation's


def built(state, *arguments, **options) -> Primus:
    network = Primus(*arguments, **options).to(next(iter(state.values())).dtype)
    network.load_state_dict(state)
    return network.eval()


@pytest.mark.parametrize(("dim", "heads"), WIDTHS)
@pytest.mark.parametrize(
    ("table", "grid"),
    [(None, (3, 1, 4)), ((3, 2, 4), (3, 2, 4)), ((3, 2, 4), (2, 3, 1)), ((2, 2, 2), (3, 4, 5))],
    ids=["none", "its own canvas", "another canvas", "a larger canvas"],
)
def test_the_network_equals_its_formulas_in_double_precision(dim, heads, table, grid):
    state = {key: value.double() for key, value in random_state(dim, 2, table, seed=1).items()}
    x = np.random.default_rng(0).normal(size=(2, *(PATCH * n for n in grid)))
    with torch.no_grad():
        found = built(state, dim, 2, heads, table)(torch.from_numpy(x)[:, None])
    assert_near(found, recomputed(state, x, heads, table), 1e-10)


def test_a_small_variance_shows_the_epsilon_of_the_norms():
    state = {key: value.double() * 0.002 for key, value in random_state(144, 1).items()}
    x = np.random.default_rng(0).normal(size=(1, PATCH, PATCH, 2 * PATCH))
    with torch.no_grad():
        assert_near(built(state, 144, 1, 2)(torch.from_numpy(x)[:, None]), recomputed(state, x, 2), 1e-10)


@pytest.mark.parametrize(("dim", "heads"), WIDTHS)
@pytest.mark.parametrize("table", [None, (3, 2, 4)])
def test_the_network_equals_its_authors(dim, heads, table):
    theirs = authors_primus()(
        input_channels=1,
        embed_dim=dim,
        patch_embed_size=(PATCH, PATCH, PATCH),
        num_classes=1,
        eva_depth=2,
        eva_numheads=heads,
        input_shape=tuple(PATCH * n for n in table or (3, 2, 4)),
        use_abs_pos_embed=table is not None,
        init_values=0.1,
        scale_attn_inner=True,
    ).eval()
    state = random_state(dim, 2, table)
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert {key.split(".")[0] for key in missing} <= {"up_projection", "mask_token"}
    x = torch.randn(2, 1, 24, 16, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens, _ = theirs.eva(theirs.down_projection(x).flatten(2).transpose(1, 2))
        found = built(state, dim, 2, heads, table)(x)
    expected = tokens.transpose(1, 2).unflatten(2, (3, 2, 4))
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_random_weights_are_drawn_as_its_authors_draw_them():
    """Statistics of the draw: two seeds of two implementations share nothing else."""
    torch.manual_seed(0)
    ours = Primus(264, 3, 4, table=(4, 4, 4)).state_dict()
    expected = {"eva.pos_embed": 0.02, "eva.blocks.2.mlp.fc1_g.weight": 0.02, "eva.blocks.0.attn.q_proj.weight": 0.02}
    expected |= {f"eva.blocks.{i}.attn.proj.weight": 0.02 / np.sqrt(2 * (i + 1)) for i in range(3)}
    expected |= {f"eva.blocks.{i}.mlp.fc2.weight": 0.02 / np.sqrt(2 * (i + 1)) for i in range(3)}
    expected |= {"down_projection.proj.weight": np.sqrt(2 / (1 + 1e-4) / PATCH**3)}
    for name, std in expected.items():
        assert abs(ours[name].std().item() / std - 1) < 0.05, name
    assert not any(value.any() for key, value in ours.items() if key.endswith("proj.bias"))
