"""Exact networks give the same bits whatever the threads, memory format, kernels, batch; and refuse what
could not.
"""

import contextlib
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from gencodec.entropy.staged import Stage, StagedPrior, predict_all
from gencodec.nn import exact
from gencodec.nn.equalise import equalise
from gencodec.nn.exact import ACT_MAX, ACT_STEP, ExactConv2d, ExactPixelShuffle, ExactResidual, to_activation
from gencodec.nn.exact_io import export_exact, load_exact
from gencodec.nn.exact_ref import exact_conv2d_ref

WAYS = ["double", "single", "conv"]


def random_layer(rng, **options):
    cin, cout = (int(n) for n in rng.integers(1, 40, 2))
    k = int(rng.choice([1, 3, 5]))
    layer = ExactConv2d(cin, cout, k, stride=int(rng.choice([1, 2])), **options)
    nn.init.normal_(layer.weight, std=float(rng.uniform(0.01, 2)))
    nn.init.normal_(layer.bias)
    layer.convert()
    return layer.eval()


def random_input(rng, channels, batch=2, size=None):
    height, width = size or rng.integers(1, 14, 2)
    steps = int(ACT_MAX / ACT_STEP)
    return rng.integers(-steps, steps + 1, (batch, channels, height, width))


@contextlib.contextmanager
def environment(threads, onednn):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.mkldnn.flags(enabled=onednn), torch.backends.nnpack.flags(enabled=False):
            yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_a_layer_equals_its_integer_reference_in_every_way(seed, head):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    layer = random_layer(rng, head=head)
    x = random_input(rng, layer.weight.shape[1])
    bias_add = torch.randn(len(x), len(layer.bias))
    expected = exact_conv2d_ref(layer, x, bias_add.numpy())
    for layer.way in WAYS:
        out = layer(torch.from_numpy(x).float() * ACT_STEP, bias_add)
        step = layer.product_step()[:, None, None] if head else ACT_STEP
        assert np.array_equal((out / step).detach().numpy(), expected)


def random_net(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(
        ExactConv2d(12, 24),
        ExactPixelShuffle(24, 16),
        ExactResidual(nn.Sequential(ExactConv2d(16, 32), ExactConv2d(32, 16, activation=False))),
        ExactConv2d(16, 24, stride=2),
        ExactConv2d(24, 20, 1, head=True),
    )
    exact.convert(net)
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("seed", range(3))
def test_random_nets_give_equal_bits_over_threads_layouts_kernels_and_batches(seed):
    net = random_net(seed)
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(random_input(rng, 12, batch=16, size=(9, 11))).float() * ACT_STEP
    for layer in exact.exact_layers(net):
        layer.way = "double"
    expected = net(x)
    formats = (torch.contiguous_format, torch.channels_last)
    for way, threads, onednn, layout in itertools.product([None, *WAYS], (1, 2), (True, False), formats):
        for layer in exact.exact_layers(net):
            layer.way = way
        with environment(threads, onednn):
            for batch in (1, 4, 16):
                parts = [net(x[i : i + batch].to(memory_format=layout)) for i in range(0, 16, batch)]
                assert torch.equal(torch.cat(parts), expected), (way, threads, onednn, layout, batch)


def test_less_float32_precision_turns_to_float64():
    device = torch.device("cpu")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert exact.safe_way(device) == "double"
    finally:
        torch.set_float32_matmul_precision(before)


def test_autocast_changes_nothing():
    net = random_net(5)
    x = torch.from_numpy(random_input(np.random.default_rng(0), 12)).float() * ACT_STEP
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x), random_net(5)(x))


def test_the_same_code_trains_and_keeps_the_bound():
    torch.manual_seed(0)
    net = nn.Sequential(ExactConv2d(4, 64, 5), ExactConv2d(64, 64, 5), ExactConv2d(64, 2, 1, head=True))
    exact.convert(net)
    x = to_activation(torch.randn(4, 4, 16, 16) * 4)
    target = x[:, :2] * 0.5
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        loss = (net(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        exact.project(net)
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    exact.check_bounds([net])
    trained = net(x)
    assert torch.equal(net.eval()(x), trained), "training and inference must compute alike"


def test_projection_mends_what_the_check_refuses():
    layer = ExactConv2d(512, 4, 5)
    nn.init.ones_(layer.weight)
    layer.exponent.copy_(torch.full((4,), -7.0))
    layer.exact = True
    with pytest.raises(ValueError, match="refused"):
        layer.check_bound()
    layer.project()
    layer.check_bound()


def small_prior():
    """Of residuals, in three stages."""
    stages = [Stage(0, 1, (0, 1)), Stage(0, 1, (2, 3)), Stage(1, 1, (0, 1, 2, 3))]
    return StagedPrior([[0, 1, 2], [3, 4, 5, 6, 7]], (16, 16), stages, centred=True, extra_channels=6)


def test_equalising_changes_no_output_and_fills_the_range():
    torch.manual_seed(1)
    prior = small_prior().eval()
    for table, _ in prior.tables():
        nn.init.normal_(table.anchors)
    extra = torch.randint(-8, 9, (2, 6, 12, 12)).float()
    y = torch.randint(-8, 9, (2, 8, 12, 12)).float()
    q = torch.tensor([0, 63])

    def run():
        return [v for turn in predict_all(prior, y, q, extra) for v in turn]

    before = run()
    equalise(prior.links(), run)
    for a, b in zip(before, run(), strict=True):
        assert torch.allclose(a, b, atol=1e-3)
    seen = []
    prior.nets[0].conv_mid.register_forward_hook(lambda m, i, out: seen.append(out.abs().amax((0, 2, 3))))
    run()
    assert (seen[0] > ACT_MAX / 4).float().mean() > 0.9


def make_prior(seed=0):
    torch.manual_seed(seed)
    prior = small_prior()
    for table, _ in prior.tables():
        nn.init.normal_(table.anchors)
    exact.convert(prior)
    return prior.eval()


def test_integers_survive_the_file():
    prior = make_prior()
    tensors = export_exact(prior, prior.tables(), "p.")
    assert {t.dtype for t in tensors.values()} == {torch.int8, torch.int32}
    loaded = small_prior().eval()
    load_exact(loaded, loaded.tables(), tensors, "p.")
    extra, q = torch.randint(-16, 17, (2, 6, 7, 8)).float(), torch.tensor([3, 60])
    y = torch.randint(-8, 9, (2, 8, 7, 8)).float()
    for net in (prior, loaded):
        net.result = torch.cat([v for turn in predict_all(net, y, q, extra) for v in turn], 1)
    assert torch.equal(prior.result, loaded.result)


@pytest.mark.parametrize("damage", ["missing", "shape", "dtype", "bound"])
def test_a_bad_file_is_refused(damage):
    prior = make_prior()
    tensors = export_exact(prior, prior.tables(), "p.")
    name = "p.nets.1.conv_in.weight"
    if damage == "missing":
        del tensors[name]
    elif damage == "shape":
        tensors[name] = tensors[name][:, :3]
    elif damage == "dtype":
        tensors[name] = tensors[name].float()
    else:
        tensors["p.nets.1.conv_in.bias"] = torch.full_like(tensors["p.nets.1.conv_in.bias"], 2**25)
    fresh = small_prior()
    with pytest.raises(ValueError, match=r"nets.1.conv_in|refused"):
        load_exact(fresh, fresh.tables(), tensors, "p.")


def test_float64_holds_sums_that_float32_would_round():
    """The test above would pass on a net without teeth: show that an over-large net really differs."""
    torch.manual_seed(0)
    layer = ExactConv2d(900, 8, 5)
    layer.exponent.zero_()
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-127, 128, layer.weight.shape).float())
        layer.weight[:, ::2] = 127
    layer.exact, layer.head = True, True
    x = torch.from_numpy(random_input(np.random.default_rng(0), 900, 4)).abs().float() * ACT_STEP
    results = []
    for layer.way in ("double", "single"):
        results.append(layer.eval()(x))
    assert layer.largest_sum().max() > exact.MAX_SUM
    wide = torch.nn.functional.conv2d(x.double(), layer.weight.double(), padding=2)
    assert not torch.equal(results[1].double(), wide)
