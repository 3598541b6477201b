"""The shared latent coder: what goes in comes out, at the size that was estimated, and never by luck."""

import numpy as np
import pytest
import torch
from torch import nn

from gencodec.codec import CorruptStream, InexactDevice
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.latents import LatentCoder
from gencodec.entropy.model import LatentModel, gaussian_bits, index_to_scale
from gencodec.entropy.staged import Stage, StagedPrior, predict_all
from gencodec.entropy.tables import gaussian_tables
from gencodec.methods.intra.stages import RESIDUAL, groups_of, stages
from gencodec.nn.exact import convert

CPU = torch.device("cpu")
C = 8


GROUPS = ([0, 5], [1, 2], [3, 4, 6, 7])
STAGES = [
    *(Stage(0, 2, (place,)) for place in range(4)),
    *(Stage(0, 1, (place,)) for place in (1, 2, 3)),
    *(Stage(group, 1, pair) for group in (1, 2) for pair in ((0, 1), (2, 3))),
]


def make_prior(extra=0, residual=False):
    """Of key frames, or of residuals."""
    return StagedPrior(GROUPS, (16, 16, 24), STAGES, centred=residual, extra_channels=extra)


def make_model(seed=0, extra=0, residual=False):
    torch.manual_seed(seed)
    model = LatentModel(make_prior(extra, residual))
    for table, _ in model.prior.tables():
        nn.init.normal_(table.anchors)
    convert(model.prior)
    return model.eval()


def weights_of(model):
    tensors = model.prior.to_tensors("latents.prior.")
    return tensors | gaussian_tables().to_tensors("latents.y_tables")


def make_coder(seed=0, extra=0, tensors=None, residual=False):
    model = make_model(seed, extra, residual)
    fresh = LatentModel(make_prior(extra, residual))
    return LatentCoder.load(fresh, tensors if tensors is not None else weights_of(model))


def code(coder, y, quality, extra=None):
    encoder = SymbolEncoder()
    coded = coder.encode(encoder, y, quality, extra)
    return coded, encoder.finish()


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 28)])
@pytest.mark.parametrize("quality", [0, 20, 63])
def test_round_trip(size, quality, residual):
    coder = make_coder(residual=residual)
    y = torch.randn(1, C, *size) * 2.0 ** (quality / 16)
    coded, payload = code(coder, y, quality)
    decoder = SymbolDecoder(payload)
    back = coder.decode(decoder, size, quality, CPU)
    decoder.finish()
    assert torch.equal(back.y_hat, coded.y_hat)
    assert all(np.array_equal(a, b) for a, b in zip(back.symbols, coded.symbols, strict=True))
    assert [s.dtype for s in back.symbols] == [np.dtype(np.int32)] * len(STAGES)
    assert sum(s.size for s in back.symbols) == C * size[0] * size[1]


@pytest.mark.parametrize("residual", [False, True])
def test_y_hat_is_near_y(residual):
    coder = make_coder(residual=residual)
    y = torch.randn(1, C, 8, 8) * 3
    coded, _ = code(coder, y, 30)
    coded_places = torch.from_numpy(np.abs(coded.y_hat.numpy() - y.numpy()))
    assert coded_places.median() <= 0.5  # but for the places that are zero by definition


@pytest.mark.parametrize("residual", [False, True])
def test_huge_latents_escape_and_come_back(residual):
    coder = make_coder(residual=residual)
    y = torch.randn(1, C, 4, 4)
    y[0, 0, 0, 0], y[0, 3, 2, 1] = 1e9, -3000
    coded, payload = code(coder, y, 10)
    assert torch.equal(coder.decode(SymbolDecoder(payload), (4, 4), 10, CPU).y_hat, coded.y_hat)


@pytest.mark.parametrize("residual", [False, True])
def test_integer_context_of_earlier_frames_takes_part(residual):
    coder = make_coder(extra=3, residual=residual)
    y, extra = torch.randn(1, C, 6, 7) * 2, torch.randint(-16, 17, (1, 3, 6, 7)).float()
    coded, payload = code(coder, y, 40, extra)
    assert torch.equal(coder.decode(SymbolDecoder(payload), (6, 7), 40, CPU, extra).y_hat, coded.y_hat)
    decoder = SymbolDecoder(payload)
    with pytest.raises(CorruptStream):  # noqa: PT012 - either line may be the one that notices
        coder.decode(decoder, (6, 7), 40, CPU, extra.roll(1, 3))
        decoder.finish()


@pytest.mark.parametrize("residual", [False, True])
def test_estimated_and_real_size_agree(residual):
    model = make_model(residual=residual)
    for head in model.prior.heads():
        nn.init.zeros_(head.weight)  # means of 0 and one scale, known below: latents that fit their tables
    coder = make_coder(tensors=weights_of(model), residual=residual)
    for quality, index in ((0, 20), (24, 31), (48, 41)):
        y = torch.randn(1, C, 32, 40) * index_to_scale(torch.tensor(float(index)))
        _, payload = code(coder, y, quality)
        with torch.no_grad():
            estimate = model(y, torch.tensor([quality])).bits.item()
        assert abs(8 * len(payload) - estimate) <= 0.01 * estimate + 64


def test_altered_tables_are_noticed():
    tensors = weights_of(make_model())
    y = torch.randn(1, C, 8, 8) * 3
    coded, payload = code(make_coder(), y, 32)
    altered = {k: v.clone() for k, v in tensors.items()}
    altered["latents.y_tables.cdf"][20:, 1] += 1  # zero is likelier by a count of 65536
    decoder = SymbolDecoder(payload)
    coder = make_coder(tensors=altered)
    try:
        back = coder.decode(decoder, (8, 8), 32, CPU)
    except CorruptStream:
        return
    assert any(not np.array_equal(a, b) for a, b in zip(back.symbols, coded.symbols, strict=True))


@pytest.mark.parametrize("residual", [False, True])
def test_one_altered_weight_changes_the_fingerprint_and_is_refused(residual):
    coder = make_coder(residual=residual)
    recorded = coder.fingerprint(CPU)
    coder.self_test(CPU, recorded)
    tensors = weights_of(make_model(residual=residual))
    tensors["latents.prior.nets.7.conv_out.weight"][-1, 0, 0, 0] += 1
    with pytest.raises(InexactDevice, match="--device cpu"):
        make_coder(tensors=tensors, residual=residual).self_test(CPU, recorded)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 4), (7, 9)])
def test_stages_code_every_element_once_and_look_at_nothing_later(size, residual):
    """What a stage says must not change with anything that is coded in it or behind it."""
    prior = make_model(extra=3, residual=residual).prior
    y, quality = torch.randint(-9, 10, (1, C, *size)).float(), torch.tensor([40])
    extra = torch.randint(-16, 17, (1, 3, *size)).float()
    count, known = torch.zeros(1, C, *size), torch.zeros(1, C, *size)
    for number, turn in enumerate(prior.turns(*size)):
        later = torch.where(count.bool(), y, torch.randint(-9, 10, y.shape).float())
        said = prior.predict(number, known, quality, extra)
        turn.put(count, turn.of(count) + 1)
        turn.put(known, turn.of(y))
        assert all(part.shape == turn.of(y).shape for part in said)
        found = predict_all(prior, torch.where(count.bool(), y, later), quality, extra)[number]
        assert all(torch.equal(a[:, turn.mask], b[:, turn.mask]) for a, b in zip(said, found, strict=True))
    assert (count == 1).all()


def order_of_the_page(height, width, of_residual):
    """Section "Payload" of docs/methods/intra.md: (channel, row, column) of each symbol, stage by stage.

    Of a residual by the page of s2vc.
    """
    brightness = [range(1), range(1, 6), range(6, 21), range(21, 57), range(57, 120)]
    difference = [range(1), range(0), range(1, 6), range(6, 16), range(16, 36)]
    corners = {"A": (0, 0), "B": (1, 1), "C": (0, 1), "D": (1, 0)}
    plan = [(0, "A", 2), (0, "B", 2), (0, "C", 2), (0, "D", 2), (0, "B", 1), (0, "C", 1), (0, "D", 1)]
    plan += [(1, corner, 1) for corner in "ABCD"]
    if of_residual:
        plan = [(0, corner, 1) for corner in "ABCD"] + [(1, pair, 1) for pair in ("AB", "CD")]
    plan += [(group, pair, 1) for group in (2, 3, 4) for pair in ("AB", "CD")]
    for group, letters, step in plan:
        of_colours = [(first + c) for first in (120, 156) for c in difference[group]]
        places = [corners[letter] for letter in letters]
        grid = [(r, c) for r in range(0, height, step) for c in range(0, width, step)]
        at = [(r, c) for r, c in grid if (r // step % 2, c // step % 2) in places]
        channels = [*brightness[group], *of_colours]
        yield [(channel, r, c) for channel in channels for r, c in at]


@pytest.mark.parametrize("of_residual", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 10)])
def test_latents_are_coded_in_the_order_of_the_page(size, of_residual):
    prior = StagedPrior(groups_of(192), [8] * 5, stages(RESIDUAL) if of_residual else stages())
    found = []
    for turn in prior.turns(*size):
        numbers = (
            torch.arange(192)[:, None, None] * 10000
            + torch.arange(size[0])[:, None] * 100
            + torch.arange(size[1])
        )
        coded = turn.of(numbers[None])[0][turn.mask].tolist()
        found.append([(n // 10000, n // 100 % 100, n % 100) for n in coded])
    assert found == list(order_of_the_page(*size, of_residual))
    with pytest.raises(ValueError, match="too few"):
        groups_of(48)


def test_likelihood_equals_compressai():
    entropy_models = pytest.importorskip("compressai.entropy_models")
    conditional = entropy_models.GaussianConditional(None, scale_bound=0.11, tail_mass=1e-9)
    torch.manual_seed(0)
    values, scale = torch.randn(4, 8, 6, 6) * 6, torch.rand(4, 8, 6, 6) * 8 + 0.11
    expected = -torch.log2(conditional._likelihood(values, scale))
    ours = gaussian_bits(values, scale)
    sure = expected < 14  # float32 differences of the normal's tail are coarse beyond
    assert torch.allclose(ours[sure], expected[sure], atol=1e-2)


def test_a_residual_far_beyond_its_scale_has_a_gradient():
    """Else a scale that was predicted too small would stay so."""
    residual = torch.tensor([1.0, 3.0, 30.0, 4000.0])
    scale = torch.full_like(residual, 0.11).requires_grad_()
    bits = gaussian_bits(residual, scale)
    bits.sum().backward()
    assert scale.grad is not None
    assert torch.isfinite(bits).all()
    assert (bits.diff() > 0).all()
    assert ((scale.grad < -1) & (scale.grad > -1e4)).all()


def test_tables_equal_compressais_gaussians():
    entropy_models = pytest.importorskip("compressai.entropy_models")
    scales = index_to_scale(torch.arange(64.0))
    conditional = entropy_models.GaussianConditional(None)
    conditional.update_scale_table(scales)
    tables = gaussian_tables()
    for i in (10, 32, 63):
        counts = tables.counts(i)
        reach = int(conditional._offset[i].abs())
        theirs = np.diff(conditional._quantized_cdf[i].numpy())[reach] / 65536
        assert abs(counts[0] / 65536 - theirs) < 2e-4
