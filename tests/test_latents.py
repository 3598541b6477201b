"""The shared latent coder: what goes in comes out, at the size that was estimated, and never by luck."""

import numpy as np
import pytest
import torch
from torch import nn

from gencodec.codec import CorruptStream, InexactDevice
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.latents import Z_BANDS, LatentCoder, z_table_index
from gencodec.entropy.model import LatentModel, gaussian_bits, index_to_scale
from gencodec.entropy.prior import PASSES, LatentPrior, pass_masks, predict_all
from gencodec.entropy.staged import Stage, StagedPrior
from gencodec.entropy.tables import factorized_tables, gaussian_tables
from gencodec.methods.intra.stages import groups_of, stages
from gencodec.nn.exact import convert
from gencodec.nn.exact_io import export_exact
from gencodec.nn.state import freeze_tables

CPU = torch.device("cpu")
C, CZ = 8, 6


GROUPS = ([0, 5], [1, 2], [3, 4, 6, 7])
STAGES = [
    *(Stage(0, 2, (place,)) for place in range(4)),
    *(Stage(0, 1, (place,)) for place in (1, 2, 3)),
    *(Stage(group, 1, pair) for group in (1, 2) for pair in ((0, 1), (2, 3))),
]


def make_prior(extra=0, staged=False):
    if staged:
        return StagedPrior(GROUPS, (16, 16, 24), STAGES)
    return LatentPrior(C, CZ, width=16, context=24, extra_channels=extra)


def make_model(seed=0, extra=0, staged=False):
    torch.manual_seed(seed)
    model = LatentModel(make_prior(extra, staged), 24)
    for table, _ in model.prior.tables():
        nn.init.normal_(table.anchors)
    if model.hyper_analysis:
        model.hyper_analysis.rest[-1].weight.data.mul_(8)
    convert(model.prior)
    return model.eval()


def weights_of(model):
    pmf = np.exp(-np.abs(np.arange(-16, 17)) / 3)
    z_tables = factorized_tables([pmf / pmf.sum()] * (Z_BANDS * CZ), [-16] * (Z_BANDS * CZ))
    tensors = export_exact(model.prior, model.prior.tables(), "latents.prior.")
    return (
        tensors | gaussian_tables().to_tensors("latents.y_tables") | z_tables.to_tensors("latents.z_tables")
    )


def make_coder(seed=0, extra=0, tensors=None, staged=False):
    model = make_model(seed, extra, staged)
    fresh = LatentModel(make_prior(extra, staged), 24)
    if staged:
        return LatentCoder.load(fresh, tensors if tensors is not None else weights_of(model))
    fresh.hyper_analysis.load_state_dict(model.hyper_analysis.state_dict())
    for module in fresh.hyper_analysis.modules():
        if hasattr(module, "anchors"):
            module.rows.copy_(module.table().detach())
    freeze_tables(fresh.hyper_analysis)
    return LatentCoder.load(fresh, tensors if tensors is not None else weights_of(model))


def code(coder, y, quality, extra=None):
    encoder = SymbolEncoder()
    coded = coder.encode(encoder, y, quality, extra)
    return coded, encoder.finish()


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 28)])
@pytest.mark.parametrize("quality", [0, 20, 63])
def test_round_trip(size, quality, staged):
    coder = make_coder(staged=staged)
    y = torch.randn(1, C, *size) * 2.0 ** (quality / 16)
    coded, payload = code(coder, y, quality)
    decoder = SymbolDecoder(payload)
    back = coder.decode(decoder, size, quality, CPU)
    decoder.finish()
    assert torch.equal(back.y_hat, coded.y_hat)
    assert all(np.array_equal(a, b) for a, b in zip(back.symbols, coded.symbols, strict=True))
    assert [s.dtype for s in back.symbols] == [np.dtype(np.int32)] * (len(STAGES) if staged else 1 + PASSES)
    assert sum(s.size for s in back.symbols[0 if staged else 1 :]) == C * size[0] * size[1]


@pytest.mark.parametrize("staged", [False, True])
def test_y_hat_is_near_y(staged):
    coder = make_coder(staged=staged)
    y = torch.randn(1, C, 8, 8) * 3
    coded, _ = code(coder, y, 30)
    coded_places = torch.from_numpy(np.abs(coded.y_hat.numpy() - y.numpy()))
    assert coded_places.median() <= 0.5  # but for the places that are zero by definition


@pytest.mark.parametrize("staged", [False, True])
def test_huge_latents_escape_and_come_back(staged):
    coder = make_coder(staged=staged)
    y = torch.randn(1, C, 4, 4)
    y[0, 0, 0, 0], y[0, 3, 2, 1] = 1e9, -3000
    coded, payload = code(coder, y, 10)
    assert torch.equal(coder.decode(SymbolDecoder(payload), (4, 4), 10, CPU).y_hat, coded.y_hat)


def test_integer_context_of_earlier_frames_takes_part():
    coder = make_coder(extra=3)
    y, extra = torch.randn(1, C, 6, 7) * 2, torch.randint(-16, 17, (1, 3, 6, 7)).float()
    coded, payload = code(coder, y, 40, extra)
    assert torch.equal(coder.decode(SymbolDecoder(payload), (6, 7), 40, CPU, extra).y_hat, coded.y_hat)
    decoder = SymbolDecoder(payload)
    with pytest.raises(CorruptStream):  # noqa: PT012 - either line may be the one that notices
        coder.decode(decoder, (6, 7), 40, CPU, extra.roll(1, 3))
        decoder.finish()


@pytest.mark.parametrize("staged", [False, True])
def test_estimated_and_real_size_agree(staged):
    model = make_model(staged=staged)
    for head in model.prior.heads():
        nn.init.zeros_(head.weight)  # mean 0 and one scale, known below: latents that fit their tables
    coder = make_coder(tensors=weights_of(model), staged=staged)
    for quality, index in ((0, 20), (24, 31), (48, 41)):
        y = torch.randn(1, C, 32, 40) * index_to_scale(torch.tensor(float(index)))
        coded, payload = code(coder, y, quality)
        z = coded.symbols[0]
        z_bits = 0 if staged else coder.z_tables.bits(z, z_table_index(z.shape, quality)).sum()
        with torch.no_grad():
            estimate = model(y, torch.tensor([quality])).y_bits.item() + z_bits
        assert abs(8 * len(payload) - estimate) <= 0.01 * estimate + 64


def test_one_altered_table_entry_is_noticed():
    tensors = weights_of(make_model())
    y = torch.randn(1, C, 8, 8) * 3
    coded, payload = code(make_coder(), y, 32)
    altered = {k: v.clone() for k, v in tensors.items()}
    altered["latents.z_tables.cdf"][4 * CZ, 1] += 1
    decoder = SymbolDecoder(payload)
    coder = make_coder(tensors=altered)
    try:
        back = coder.decode(decoder, (8, 8), 32, CPU)
    except CorruptStream:
        return
    assert any(not np.array_equal(a, b) for a, b in zip(back.symbols, coded.symbols, strict=True))


@pytest.mark.parametrize("staged", [False, True])
def test_one_altered_weight_changes_the_fingerprint_and_is_refused(staged):
    coder = make_coder(staged=staged)
    recorded = coder.fingerprint(CPU)
    coder.self_test(CPU, recorded)
    tensors = weights_of(make_model(staged=staged))
    tensors[f"latents.prior.{'nets.7' if staged else 'near.2'}.conv_out.weight"][-1, 0, 0, 0] += 1
    with pytest.raises(InexactDevice, match="--device cpu"):
        make_coder(tensors=tensors, staged=staged).self_test(CPU, recorded)


def test_every_element_is_coded_once_and_every_pass_meets_every_place():
    masks = torch.cat(pass_masks(8, 5, 4))  # (PASSES,8,5,4)
    assert (masks.sum(0) == 1).all()
    assert masks.any(1).all()
    assert masks[:2, :, :2, :2].sum((2, 3)).eq(1).all()  # one of four places a channel and pass ...
    diagonal = masks[:2].any(0)[:, :2, :2]
    assert torch.equal(diagonal[:, 0, 0], diagonal[:, 1, 1])  # ... and after two passes a checkerboard
    assert len(masks) == PASSES


@pytest.mark.parametrize("size", [(1, 1), (5, 4), (7, 9)])
def test_stages_code_every_element_once_and_look_at_nothing_later(size):
    """What a stage says must not change with anything that is coded in it or behind it."""
    prior = make_model(staged=True).prior
    y, quality = torch.randint(-9, 10, (1, C, *size)).float(), torch.tensor([40])
    count, known = torch.zeros(1, C, *size), torch.zeros(1, C, *size)
    for number, turn in enumerate(prior.turns(*size)):
        later = torch.where(count.bool(), y, torch.randint(-9, 10, y.shape).float())
        said = prior.predict(number, y[:, :0], known, quality)
        turn.put(count, turn.of(count) + 1)
        turn.put(known, turn.of(y))
        assert all(part.shape == turn.of(y).shape for part in said)
        found = predict_all(prior, y[:, :0], torch.where(count.bool(), y, later), quality)[number]
        assert all(torch.equal(a[:, turn.mask], b[:, turn.mask]) for a, b in zip(said, found, strict=True))
    assert (count == 1).all()


def order_of_the_page(height, width):
    """Section "Payload" of docs/methods/intra.md: (channel, row, column) of each symbol, stage by stage."""
    brightness = [range(1), range(1, 6), range(6, 21), range(21, 57), range(57, 120)]
    difference = [range(1), range(0), range(1, 6), range(6, 16), range(16, 36)]
    corners = {"A": (0, 0), "B": (1, 1), "C": (0, 1), "D": (1, 0)}
    plan = [(0, "A", 2), (0, "B", 2), (0, "C", 2), (0, "D", 2), (0, "B", 1), (0, "C", 1), (0, "D", 1)]
    plan += [(1, corner, 1) for corner in "ABCD"]
    plan += [(group, pair, 1) for group in (2, 3, 4) for pair in ("AB", "CD")]
    for group, letters, step in plan:
        of_colours = [(first + c) for first in (120, 156) for c in difference[group]]
        places = [corners[letter] for letter in letters]
        grid = [(r, c) for r in range(0, height, step) for c in range(0, width, step)]
        at = [(r, c) for r, c in grid if (r // step % 2, c // step % 2) in places]
        channels = [*brightness[group], *of_colours]
        yield [(channel, r, c) for channel in channels for r, c in at]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 10)])
def test_key_frames_are_coded_in_the_order_of_the_page(size):
    prior = StagedPrior(groups_of(192), [8] * 5, stages())
    found = []
    for turn in prior.turns(*size):
        numbers = (
            torch.arange(192)[:, None, None] * 10000
            + torch.arange(size[0])[:, None] * 100
            + torch.arange(size[1])
        )
        coded = turn.of(numbers[None])[0][turn.mask].tolist()
        found.append([(n // 10000, n // 100 % 100, n % 100) for n in coded])
    assert found == list(order_of_the_page(*size))
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


@pytest.mark.parametrize("spread", [0.05, 3.0])
def test_hyper_latents_are_sent_only_where_they_pay(spread):
    """A payload takes no more bits than with the hyper-latents of the analysis, or with none."""
    tensors = weights_of(make_model())
    pmf = np.exp(-np.abs(np.arange(-16, 17)) / spread)
    tables = factorized_tables([pmf / pmf.sum()] * (Z_BANDS * CZ), [-16] * (Z_BANDS * CZ))
    coder = make_coder(tensors=tensors | tables.to_tensors("latents.z_tables"))
    y = 3 * torch.randn(1, C, 12, 12, generator=torch.Generator().manual_seed(1))
    z = coder.model.hyper_symbols(y, torch.tensor([30])).detach()
    assert z.any()
    with torch.inference_mode():
        costs = [coder._trial(y, one, 30, None).cost for one in (z, torch.zeros_like(z))]
    coded, payload = code(coder, y, 30)
    sent = torch.from_numpy(coded.symbols[0])[None]
    assert torch.equal(sent, (z if costs[0] <= costs[1] else torch.zeros_like(z)).int())
    assert 8 * len(payload) <= min(costs) + 40
    if spread < 1:
        assert not sent.any(), "anything but zero is dear"


def test_an_estimate_may_do_without_hyper_latents():
    """For each member: those that send none are estimated as if z were zero, the others as ever."""
    model, quality = make_model(), torch.tensor([30, 30])
    y = 3 * torch.randn(2, C, 12, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        every, mixed = model(y, quality), model(y, quality, None, torch.tensor([True, False]))
        nn.init.zeros_(model.hyper_analysis.rest[-1].weight)
        nn.init.zeros_(model.hyper_analysis.rest[-1].bias)
        zero = model(y, quality)
    assert every.z_hat.any()
    assert not zero.z_hat.any()
    assert torch.equal(mixed.z_bits, torch.stack([every.z_bits[0], torch.tensor(0.0)]))
    for name in ("y_hat", "y_bits", "z_hat", "symbols", "scale_index"):
        sent, without, both = (getattr(e, name) for e in (every, zero, mixed))
        assert torch.equal(both[0], sent[0]), name
        assert torch.equal(both[1], without[1]), name
