from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from equivox.errors import ConfigError, GridSymmetryError, MissingExtraError
from equivox.geometry.rotate import rotate_volume
from equivox.geometry.rotations import cube_group, random_rotations, rotation_angle
from equivox.nets.brain_code import BrainCode, align_codes, align_vectors, turn_code
from equivox.nets.brain_contrast import BrainContrast
from equivox.nets.brain_decoder import BrainDecoder, CodeDecoder
from equivox.nets.brain_encoder import BrainEncoder, build_encoder
from equivox.nn import fold
from equivox.nn.binomial_pool import BinomialPool3d, BinomialUpsample3d
from equivox.nn.masked import MaskedFieldNorm, masked_mean, soft_ball_mask
from equivox.tasks.encode.train_certificate import phantom
from equivox.testing import rotate_field

SIDE = 16


def encoder(side: int = SIDE, seed: int = 0, **options: object) -> BrainEncoder:
    return BrainEncoder(side, 3.3 * 64 / side, generator=torch.Generator().manual_seed(seed), **options).eval()


def errors(found: BrainCode, wanted: BrainCode) -> list[float]:
    size = [wanted.polar, wanted.polar, wanted.scalars, wanted.pseudoscalars]
    return [
        float((one - other).abs().max() / like.abs().max())
        for one, other, like in zip(found, wanted, size, strict=True)
    ]


def trained(network: BrainEncoder) -> BrainEncoder:
    """A few steps of nonsense, so that every parameter has moved."""
    draw = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(3):
        volume, mask = phantom(network.side)
        code = network(volume * (0.5 + torch.rand(volume.shape, generator=draw)), mask)
        optimizer.zero_grad()
        sum((part * torch.randn(part.shape, generator=draw)).sum() for part in code).backward()
        optimizer.step()
    return network.eval()


@pytest.mark.parametrize("state", ["untrained", "trained"])
def test_all_48_symmetries_of_the_cube_are_exact(state: str) -> None:
    """Goal G1, in float64: at most 1e-10 per block, polar and axial told apart by mirrors."""
    small = {"fields": ((4, 2, 0), (6, 3, 2), (8, 4, 2)), "kernel_sizes": (5, 5, 3)}
    network = encoder(**small) if state == "untrained" else trained(encoder(**small))
    network = network.double()
    volume, mask = (one.double() for one in phantom(SIDE))
    group = cube_group(improper=True)
    with torch.no_grad():
        before = network(volume, mask)
        turned, brain = (rotate_volume(one.expand(48, -1, -1, -1, -1), group) for one in (volume, mask))
        found = network(turned, brain)
    wanted = turn_code(BrainCode(*(part.expand(48, *part.shape[1:]) for part in before)), group)
    assert max(errors(found, wanted)) <= 1e-10
    mirrored = found._replace(axial=-found.axial)
    assert errors(mirrored, wanted)[1] > 1e-2  # the block is not empty: another parity would be seen


def test_single_precision_is_exact_to_rounding() -> None:
    network = encoder()
    volume, mask = phantom(SIDE)
    with torch.no_grad():
        before = network(volume, mask)
        for element in cube_group(improper=True)[[5, 17, 40]]:
            found = network(rotate_volume(volume, element[None]), rotate_volume(mask, element[None]))
            # G1's 1e-5 is of 64 voxels (the shipped encoder's test); few voxels and first weights make vectors small
            assert max(errors(found, turn_code(before, element[None]))[:3]) <= 5e-5
            assert errors(found, turn_code(before, element[None]))[3] <= 1e-3


def test_what_is_uniform_in_a_brain_is_left_out_of_the_first_convolution_and_changes_nothing() -> None:
    """In float64 the scores are those of the field itself, up to the border; in float32 they are nearer to them."""
    level = encoder().levels[0].double()
    as_it_is = copy.deepcopy(level)
    as_it_is.base, as_it_is.conv.padding = 0.0, (level.reach,) * 3
    volume, mask = (one.double() for one in phantom(SIDE))
    inside = torch.ones_like(mask)  # up to the border, where the grid ends and zeros begin
    field = torch.cat([volume + 1.0, inside], dim=1)
    with torch.no_grad():
        plain, moved = as_it_is(field, inside), level(field, inside)
        for one, other in zip(plain, moved, strict=True):
            assert_close(one, other, atol=1e-12, rtol=0)
        found = (one.float()(field.float(), inside.float())[0].double() for one in (as_it_is, level))
        far, near = (one - plain[0] for one in found)
    assert float(near.norm()) < 0.7 * float(far.norm())


def lattice(turn: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The phantom of smooth blobs evaluated at turned points: no interpolation anywhere."""
    draw = torch.Generator().manual_seed(3)
    axis = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / (side / 2)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1) @ turn
    x, y, z = points.unbind(-1)
    egg = (x / 0.6) ** 2 + (y / (0.72 + 0.1 * x)) ** 2 + (z / (0.58 + 0.1 * y)) ** 2
    mask = torch.sigmoid((1.0 - egg) * 8)
    volume = torch.full_like(mask, 0.7)
    for _ in range(12):
        place = 0.8 * (torch.rand(3, generator=draw, dtype=torch.float64) - 0.5)
        width = 0.15 + 0.1 * float(torch.rand((), generator=draw))
        height = float(torch.rand((), generator=draw)) - 0.5
        volume = volume + height * torch.exp(-(points - place).square().sum(-1) / (2 * width**2))
    return (volume.clamp(0.1, 1.5) * mask)[None, None].float(), mask[None, None].float()


def test_other_angles_follow_and_a_plain_network_does_not() -> None:
    """Goals G2, G2b, G2c at 32 voxels: E, I and rank at Haar rotations, beside the plain network that must fail."""
    side = 32
    turns = torch.cat(
        [torch.eye(3, dtype=torch.float64)[None], random_rotations(3, generator=torch.Generator().manual_seed(0))]
    )
    volumes, masks = (torch.cat(one) for one in zip(*[lattice(turn, side) for turn in turns], strict=True))
    plain = build_encoder("brain_cnn", side=side, generator=torch.Generator().manual_seed(0)).eval()
    found: dict[str, tuple[float, float, float]] = {}
    for name, network in (("ours", encoder(side)), ("plain", plain)):
        with torch.no_grad():
            code = network(volumes, masks)
        first = BrainCode(*(part[:1].expand(3, *part.shape[1:]) for part in code))
        wanted, others = turn_code(first, turns[1:]), BrainCode(*(part[1:] for part in code))
        size = wanted.polar.flatten(1).norm(dim=1)
        vectors = float(((others.polar - wanted.polar).flatten(1).norm(dim=1) / size).mean())
        scalars = float(((others.scalars - wanted.scalars).norm(dim=1) / wanted.scalars.norm(dim=1)).mean())
        pose = torch.rad2deg(rotation_angle(align_codes(first, others).rotation.double() @ turns[1:].mT))
        found[name] = (vectors, scalars, float(pose.median()))
    assert found["ours"][0] < 0.06
    assert found["ours"][1] < 0.01
    assert found["ours"][2] < 1.5
    assert found["plain"][0] > 0.7
    assert found["plain"][2] > 20
    values = torch.linalg.svdvals(encoder(side)(volumes[:1], masks[:1]).polar.detach())
    assert float(values[0, 1] / values[0, 0]) > 0.1


def test_shading_gamma_and_gain_hardly_matter() -> None:
    """A linear bias field of 20 %, gamma 0.8 and a gain change the contrast by a few percent at most."""
    volume, mask = lattice(torch.eye(3, dtype=torch.float64), 32)
    axis = (torch.arange(32) - 15.5) / 16
    shading = 1 + 0.2 * axis.view(1, 1, -1, 1, 1) - 0.1 * axis.view(1, 1, 1, -1, 1)
    spoiled = 1.7 * (volume / mask.clamp_min(1e-3)).clamp(max=2) ** 0.8 * shading * mask
    for degree, limit in ((2, 0.03), (-1, None)):
        contrast = BrainContrast(32, degree)
        before, after = contrast(volume, mask), contrast(spoiled, mask)
        change = float((after - before).norm() / before.norm())
        assert change < limit if limit else change > 0.3


def test_a_shift_of_the_brain_changes_nothing() -> None:
    network = encoder(32)
    volume, mask = lattice(torch.eye(3, dtype=torch.float64), 32)
    small = [torch.nn.functional.interpolate(one, scale_factor=0.5, mode="trilinear") for one in (volume, mask)]
    placed = [torch.nn.functional.pad(one, (8, 8, 8, 8, 8, 8)) for one in small]
    with torch.no_grad():
        before = network(*placed)
        after = network(*(one.roll(4, 2) for one in placed))  # a multiple of both halvings
    assert float((after.polar - before.polar).norm() / before.polar.norm()) < 2e-3
    assert float((after.scalars - before.scalars).norm() / before.scalars.norm()) < 2e-3


def test_the_folded_network_gives_the_same_code_without_steerable_layers() -> None:
    network = trained(encoder())
    plain = fold(network)
    assert not any("Steerable" in type(module).__name__ for module in plain.modules())
    volume, mask = phantom(SIDE)
    with torch.no_grad():
        for one, other in zip(plain(volume, mask), network(volume, mask), strict=True):
            assert_close(one, other, atol=2e-4, rtol=1e-3)


def test_layers_of_depth_that_are_not_counted_leave_everything_else() -> None:
    """Folders from before the option have none of it: they count all five, by the same weights."""
    whole, inner = encoder(), encoder(histogram_layers=[1, 2, 3, 4], scalars=251)
    assert (whole.histogram.count, inner.histogram.count) == (60, 48)
    assert whole.head.direct.weight.shape == (256, 263)
    assert inner.head.direct.weight.shape == (251, 251)
    volume, mask = phantom(SIDE)
    with torch.no_grad():
        before, after = whole.pooled(volume, mask), inner.pooled(volume, mask)
        codes = whole(volume, mask), inner(volume, mask)
    first = before[2].shape[1] - 61
    kept = torch.ones(before[2].shape[1], dtype=torch.bool)
    kept[first : first + 60 : 5] = False
    assert_close(after[2], before[2][:, kept])
    assert_close(float(before[2][0, first : first + 60].sum()), 1.0)
    for one, other in zip([*before[:2], codes[0].polar, codes[0].axial], [*after[:2], codes[1].polar, codes[1].axial],
                          strict=True):  # fmt: skip
        assert torch.equal(one, other)
    for wrong in ([], [0, 5], [1, 1], [-1]):
        with pytest.raises(ConfigError, match="from 0 to 4"):
            encoder(histogram_layers=wrong)


def test_the_budget_is_kept() -> None:
    """Goal G10: at most 1 M parameters and 4 MB."""
    network = BrainEncoder(64, 3.3, generator=torch.Generator().manual_seed(0))
    assert sum(parameter.numel() for parameter in network.parameters()) < 1_000_000
    assert sum(value.numel() * value.element_size() for value in network.state_dict().values()) < 4_000_000


def test_a_batch_is_encoded_item_by_item(generator: torch.Generator) -> None:
    network = encoder()
    volume, mask = phantom(SIDE)
    volumes = volume * (0.8 + 0.4 * torch.rand(3, 1, SIDE, SIDE, SIDE, generator=generator))
    with torch.no_grad():
        together = network(volumes, mask.expand(3, -1, -1, -1, -1))
        for index in range(3):
            for one, other in zip(together, network(volumes[index : index + 1], mask), strict=True):
                assert_close(one[index], other[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "head"), [("brain_cnn", "full"), ("brain_cnn", "published"), ("brain_vit", "full")])
def test_baselines_give_codes_of_the_rank_that_their_head_allows(name: str, head: str) -> None:
    options = {"width": 96} if name == "brain_vit" else {}
    network = build_encoder(name, side=32, head=head, generator=torch.Generator().manual_seed(0), **options).eval()
    volume, mask = phantom(32)
    with torch.no_grad():
        code = network(volume, mask)
    values = torch.linalg.svdvals(code.polar[0])
    assert code.axial.shape[1] == code.pseudoscalars.shape[1] == 0
    if head == "published":
        assert float(values[1] / values[0]) < 1e-6
        assert float(align_vectors(code.polar, code.polar).confidence) < 1e-5
    else:
        assert float(values[1] / values[0]) > 0.2
    assert build_encoder(name, side=32, head=head, read="gram", **options)(volume, mask).scalars.shape[1] == 136


def test_decoders_turn_along() -> None:
    draw = torch.Generator().manual_seed(0)
    network, element = encoder().double(), cube_group()[7]
    volume, mask = (one.double() for one in phantom(SIDE))
    turned, brain = (rotate_volume(one, element[None]) for one in (volume, mask))
    field = BrainDecoder(network.irreps_last, generator=draw).double()
    code = CodeDecoder(256, 64, SIDE, generator=draw).double()
    with torch.no_grad():
        for decode in (lambda v, m: field(network.fields(v, m)[-1][1]), lambda v, m: code(network(v, m))):
            before, after = decode(volume, mask), decode(turned, brain)
            assert before.shape == volume.shape
            assert_close(after, rotate_volume(before, element[None]), atol=1e-9, rtol=0)
            assert float(before.std()) > 1e-3
            assert float(before.square().mean()) < 1.5  # intensities have one half; a first guess of 25 drowned them


def test_binomial_pools_keep_the_centre_and_refuse_odd_sides(generator: torch.Generator) -> None:
    field = torch.randn(1, 4, 8, 8, 8, generator=generator, dtype=torch.float64)
    element = cube_group(improper=True)[20]
    turned = rotate_field(field, "1x0e+1x1o", element)
    for layer in (BinomialPool3d(8), BinomialPool3d(6), BinomialUpsample3d(8)):
        assert_close(layer(turned), rotate_field(layer(field), "1x0e+1x1o", element), atol=1e-12, rtol=0)
    inner = BinomialUpsample3d(8)(torch.ones(1, 1, 8, 8, 8))[..., 4:-4, 4:-4, 4:-4]
    assert_close(inner, torch.ones_like(inner))
    with pytest.raises(GridSymmetryError, match="side of 7"):
        BinomialPool3d()(torch.zeros(1, 1, 8, 7, 8))
    with pytest.raises(ConfigError, match="7 taps"):
        BinomialPool3d(7)


def test_masked_norms_count_the_inside_only(generator: torch.Generator) -> None:
    field = torch.randn(2, 7, 6, 6, 6, generator=generator)
    mask = torch.zeros(2, 1, 6, 6, 6)
    mask[:, :, 1:4, 1:4, 1:4] = 1
    norm = MaskedFieldNorm("1x0e+1x1o+1x1e")
    spoiled = torch.where(mask > 0, field, torch.full_like(field, 1e3))
    found = norm(spoiled, mask)
    assert_close(found * mask, norm(field, mask) * mask, atol=1e-5, rtol=1e-5)
    assert_close(masked_mean(found[:, :1], mask), torch.zeros(2, 1), atol=1e-4, rtol=0)
    assert_close(masked_mean(found[:, 1:4].square(), mask).mean(1), torch.ones(2), atol=1e-3, rtol=0)
    ratio = masked_mean(found[:, 4:].square(), mask).mean(1) / masked_mean(field[:, 4:].square(), mask).mean(1)
    assert_close(ratio, 1 / masked_mean(field[:, 1:4].square(), mask).mean(1), atol=1e-3, rtol=1e-3)
    ball = soft_ball_mask(16)
    assert float(ball[8, 8, 8]) > 0.999
    assert float(ball[0, 0, 0]) < 1e-3


def test_what_cannot_be_built_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="there is no encoder 'brain'"):
        build_encoder("brain")
    with pytest.raises(ConfigError, match="no option 'sides'"):
        build_encoder("brain_encoder", sides=3)
    with pytest.raises(ConfigError, match="multiple of 4"):
        BrainEncoder(18)
    with pytest.raises(ConfigError, match="as many"):
        BrainEncoder(16, kernel_sizes=(3,))
    with pytest.raises(ConfigError, match="at least 1 scalar"):
        BrainEncoder(16, fields=((0, 2, 0),), kernel_sizes=(3,))
    with pytest.raises(ConfigError, match="multiple of 16"):
        build_encoder("brain_cnn", side=24)
    with pytest.raises(ValueError, match="cubes of 16"):
        encoder()(torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 1, 8, 8, 8))
    monkeypatch.setitem(__import__("sys").modules, "einops", None)
    with pytest.raises(MissingExtraError, match="einops"):
        build_encoder("brain_vit", side=32)


def test_an_empty_mask_gives_finite_numbers() -> None:
    code = encoder()(torch.zeros(1, 1, SIDE, SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE, SIDE))
    assert all(bool(torch.isfinite(part).all()) for part in code)


def test_published_weights_of_a_folder_name_the_encoder(tmp_path: Path) -> None:
    from equivox.weights.registry import build_network

    network = build_network({"architecture": "brain_encoder", "side": 16, "voxel_size_mm": 13.2})
    assert isinstance(network, BrainEncoder)
