"""Samplers against diffusers' schedulers and exact solutions; schedules and wrappers against formulas."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from gencodec.sampler import denoiser, samplers, schedule
from gencodec.sampler.denoiser import from_eps, from_flow, from_v, from_x0
from gencodec.sampler.noise import Noise

SHAPE = (2, 3, 4, 4)
ALPHA_BAR = schedule.ddpm_alpha_bar(kind="scaled_linear", beta_start=0.00085, beta_end=0.012)
CONFIG: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
PREDICTIONS = {"epsilon": from_eps, "v_prediction": from_v, "sample": from_x0}
DRAW = Noise(5).steps(SHAPE[1:], candidates=range(SHAPE[0]))


def network(x, timestep):
    """A smooth toy: no linear solver is exact for it, and it tells every timestep from the next."""
    t = torch.as_tensor(timestep).double().reshape(-1, 1, 1, 1) / 1000
    return (torch.sin(1.3 * x + t) + 0.5 * x.roll(1, -1) * torch.cos(3 * t)).to(x.dtype)


def make_oracle(name, num_steps, **config: Any):
    """One of diffusers' schedulers, on this package's float64 alpha_bar: its own has float32 rounding."""
    diffusers = pytest.importorskip("diffusers")
    oracle = getattr(diffusers, name)(**(CONFIG | config))
    oracle.alphas_cumprod = ALPHA_BAR.clone()
    oracle.set_timesteps(num_steps)
    return oracle


def run_oracle(oracle, x, **step):
    for t in oracle.timesteps:
        output = network(oracle.scale_model_input(x, t), t)
        x = oracle.step(output, t, x, return_dict=False, **step)[0]
    return x


def start(sigmas):
    return sigmas[0] * DRAW(0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("num_steps", [2, 7, 25])
def test_ddpm_equals_diffusers(prediction, num_steps, monkeypatch):
    # The oracle's state is variance preserving, x / sqrt(1 + sigma^2); its variance is that of the posterior.
    # "leading" timesteps end at 0, whose sigma is not 0: the last step goes on to an alpha_bar of 1, and that
    # one without noise.
    import diffusers.schedulers.scheduling_ddpm as module

    steps = iter(range(1, num_steps))
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: DRAW(next(steps)))
    oracle = make_oracle("DDPMScheduler", num_steps, clip_sample=False, prediction_type=prediction)
    sigmas = schedule.discrete(ALPHA_BAR, schedule.spaced_timesteps(1000, num_steps))
    x = start(sigmas)
    expected = run_oracle(oracle, x / (1 + sigmas[0] ** 2).sqrt())
    got = samplers.sample_ddpm(PREDICTIONS[prediction](network, ALPHA_BAR), x, sigmas, noise=DRAW)
    torch.testing.assert_close(got, expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_ddim_equals_diffusers(eta, clip):
    # With a clipped x0 the noise direction is re-derived: the oracle does so under use_clipped_model_output.
    num_steps = 10
    clipping: dict[str, Any] = {"clip_sample": clip is not None, "clip_sample_range": clip or 1.0}
    oracle = make_oracle("DDIMScheduler", num_steps, **clipping)
    sigmas = schedule.discrete(ALPHA_BAR, schedule.spaced_timesteps(1000, num_steps))
    x = start(sigmas)
    expected = x / (1 + sigmas[0] ** 2).sqrt()
    for i, t in enumerate(oracle.timesteps):
        expected = oracle.step(
            network(expected, t),
            t,
            expected,
            eta=eta,
            variance_noise=DRAW(i + 1) if eta else None,
            use_clipped_model_output=clip is not None,
            return_dict=False,
        )[0]
    got = samplers.sample_ddim(from_eps(network, ALPHA_BAR, clip=clip), x, sigmas, eta=eta, noise=DRAW)
    torch.testing.assert_close(got, expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("name", "sampler"),
    [("EulerDiscreteScheduler", samplers.sample_euler), ("HeunDiscreteScheduler", samplers.sample_heun)],
)
def test_euler_and_heun_equal_diffusers(name, sampler, prediction):
    # These oracles keep x variance exploding, and scale the network's input; trailing timesteps are integers.
    num_steps = 8
    oracle = make_oracle(name, num_steps, timestep_spacing="trailing", prediction_type=prediction)
    sigmas = schedule.discrete(ALPHA_BAR, schedule.spaced_timesteps(1000, num_steps, "trailing"))
    torch.testing.assert_close(oracle.sigmas.unique().flip(0), sigmas)
    got = sampler(PREDICTIONS[prediction](network, ALPHA_BAR), start(sigmas), sigmas)
    torch.testing.assert_close(got, run_oracle(oracle, start(sigmas)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_steps", [1, 2, 10, 20])
def test_dpmpp_2m_equals_diffusers(num_steps):
    # The oracle's state is variance preserving. final_sigmas_type "zero" makes its last step first order at
    # any length, as here; lower_order_final alone would do so below 15 steps only.
    oracle = make_oracle(
        "DPMSolverMultistepScheduler", num_steps, timestep_spacing="trailing", final_sigmas_type="zero"
    )
    sigmas = schedule.discrete(ALPHA_BAR, schedule.spaced_timesteps(1000, num_steps, "trailing"))
    x = start(sigmas)
    expected = run_oracle(oracle, x / (1 + sigmas[0] ** 2).sqrt())
    got = samplers.sample_dpmpp_2m(from_eps(network, ALPHA_BAR), x, sigmas)
    torch.testing.assert_close(got, expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_on_flow_equals_diffusers(shift):
    diffusers = pytest.importorskip("diffusers")
    oracle = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    oracle.set_timesteps(sigmas=np.linspace(1, 1 / 6, 6))
    sigmas = schedule.flow_shifted(6, shift)
    torch.testing.assert_close(oracle.sigmas, sigmas)
    expected = DRAW(0)
    for t in oracle.timesteps:
        expected = oracle.step(network(expected, t), t, expected, return_dict=False)[0]
    for sampler in (samplers.sample_euler, samplers.sample_ddim):
        torch.testing.assert_close(
            sampler(from_flow(network), DRAW(0), sigmas), expected, rtol=1e-4, atol=1e-5
        )


# ---- exact solutions: for data N(MEAN, DEVIATION^2) the best denoiser and the flow's end are known ----

MEAN, DEVIATION = 0.5, 0.7


def gaussian_denoise(x, sigma):
    return (DEVIATION**2 * x + sigma**2 * MEAN) / (DEVIATION**2 + sigma**2)


def error(sampler, num_steps):
    # stops short of 0, where the last step of every solver is of first order
    sigmas = schedule.karras(num_steps, 0.2, 8.0)[:-1]
    x = 8.0 * Noise(1).normal((64,), step=0).double()
    end = MEAN + (x - MEAN) * math.sqrt((DEVIATION**2 + 0.2**2) / (DEVIATION**2 + 8.0**2))
    return (sampler(gaussian_denoise, x, sigmas) - end).abs().mean().item()


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(samplers.sample_euler, 1), (samplers.sample_heun, 2), (samplers.sample_dpmpp_2m, 2)],
)
def test_convergence_has_the_stated_order(sampler, order):
    measured = math.log2(error(sampler, 21) / error(sampler, 41))
    assert measured == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "ddim_eta", "euler", "heun", "dpmpp_2m"])
def test_samples_have_the_datas_mean_and_variance(name):
    count = 40_000
    draw = Noise(2).steps((count,))
    sigmas = schedule.karras(200, 0.01, 80.0)
    x = sigmas[0] * draw(0)
    sampler = {
        "ddpm": lambda: samplers.sample_ddpm(gaussian_denoise, x, sigmas, noise=draw),
        "ddim_eta": lambda: samplers.sample_ddim(gaussian_denoise, x, sigmas, eta=1.0, noise=draw),
    }.get(name, lambda: getattr(samplers, f"sample_{name}")(gaussian_denoise, x, sigmas))
    got = sampler().double()
    assert got.mean().item() == pytest.approx(MEAN, abs=5 * DEVIATION / count**0.5 + 0.005)
    assert got.std().item() == pytest.approx(DEVIATION, rel=0.03)


def test_one_step_is_the_denoiser_at_the_first_sigma():
    sigmas = torch.tensor([3.0, 0.0])
    x = start(sigmas)
    torch.testing.assert_close(
        samplers.sample_one_step(gaussian_denoise, x, sigmas), gaussian_denoise(x, torch.tensor(3.0))
    )


def test_samplers_count_their_calls_and_keep_float32():
    sigmas = schedule.karras(5, 0.1, 10)
    for sampler, expected in [
        (samplers.sample_euler, 5),
        (samplers.sample_heun, 9),
        (samplers.sample_dpmpp_2m, 5),
    ]:
        seen: list[float] = []

        def denoise(x, sigma, seen=seen):
            assert x.dtype == torch.float32
            assert sigma.shape == ()
            seen.append(sigma.item())
            return (x / 2).half()

        assert sampler(denoise, torch.ones(3).half(), sigmas).dtype == torch.float32
        assert len(seen) == expected
        assert seen[0] == 10


def test_samples_do_not_depend_on_the_batch():
    sigmas = schedule.discrete(ALPHA_BAR, schedule.spaced_timesteps(1000, 5))
    denoise = from_eps(network, ALPHA_BAR)
    together, alone = (Noise(9).steps((3, 4, 4), candidates=c) for c in ((0, 1, 2), (2,)))
    got = [samplers.sample_ddpm(denoise, sigmas[0] * d(0), sigmas, noise=d) for d in (together, alone)]
    assert torch.equal(got[0][2:], got[1])


@pytest.mark.parametrize("sigmas", [[1.0], [1.0, 1.0], [1.0, 2.0], [1.0, -1.0], [1.0, math.nan]])
def test_sigmas_that_do_not_fall_are_refused(sigmas):
    with pytest.raises(ValueError, match="sigmas must"):
        samplers.sample_euler(gaussian_denoise, torch.ones(1), torch.tensor(sigmas))


def test_ddim_refuses_eta_without_noise():
    with pytest.raises(ValueError, match=r"eta = 0\.5"):
        samplers.sample_ddim(gaussian_denoise, torch.ones(1), torch.tensor([1.0, 0.0]), eta=0.5)


# ---- schedules ----


@pytest.mark.parametrize(
    "sigmas",
    [
        schedule.karras(7, 0.02, 80.0),
        schedule.flow_shifted(7, 5.0),
        schedule.discrete(ALPHA_BAR, schedule.spaced_timesteps(1000, 7)),
        schedule.discrete(schedule.cosine_alpha_bar(), schedule.spaced_timesteps(1000, 7, "linspace")),
    ],
)
def test_schedules_fall_to_zero(sigmas):
    assert sigmas.dtype == torch.float32
    assert sigmas.shape == (8,)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_karras_has_its_ends():
    sigmas = schedule.karras(10, 0.1, 10)
    assert sigmas[0].item() == pytest.approx(10)
    assert sigmas[-2].item() == pytest.approx(0.1)


def test_alpha_bar_equals_diffusers():
    diffusers = pytest.importorskip("diffusers")
    for ours, config in [
        (ALPHA_BAR, CONFIG),
        (schedule.ddpm_alpha_bar(), {"beta_schedule": "linear"}),
        (schedule.cosine_alpha_bar(), {"beta_schedule": "squaredcos_cap_v2"}),
    ]:
        theirs = diffusers.DDPMScheduler(**config).alphas_cumprod.double()
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_equal_diffusers(spacing):
    diffusers = pytest.importorskip("diffusers")
    for num_steps in (1, 2, 7, 50):
        if spacing == "linspace" and num_steps == 1:
            continue
        oracle = diffusers.DDPMScheduler(timestep_spacing=spacing)
        oracle.set_timesteps(num_steps)
        assert torch.equal(schedule.spaced_timesteps(1000, num_steps, spacing), oracle.timesteps)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedule.karras(0, 0.1, 1), "num_steps = 0"),
        (lambda: schedule.karras(3, 2, 1), "sigma_min = 2"),
        (lambda: schedule.flow_shifted(3, 0), "shift = 0"),
        (lambda: schedule.spaced_timesteps(10, 11), "num_steps = 11"),
        (lambda: schedule.spaced_timesteps(10, 2, "even"), "spacing = 'even'"),  # type: ignore[arg-type]
        (lambda: schedule.ddpm_alpha_bar(kind="sine"), "kind = 'sine'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_schedules_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- wrappers ----


def test_wrappers_recover_x0_from_a_perfect_network():
    x0, noise = DRAW(0), DRAW(1)
    for timestep in (0, 3, 500, 999):
        a = ALPHA_BAR[timestep].float()
        sigma = schedule.to_sigma(ALPHA_BAR)[timestep].float()
        outputs = {from_eps: noise, from_v: a.sqrt() * noise - (1 - a).sqrt() * x0, from_x0: x0}
        for wrap, output in outputs.items():

            def perfect(x, t, output=output, a=a, timestep=timestep):
                assert t.tolist() == [timestep] * SHAPE[0]
                torch.testing.assert_close(x, a.sqrt() * x0 + (1 - a).sqrt() * noise, rtol=1e-5, atol=1e-5)
                return output

            got = wrap(perfect, ALPHA_BAR)(x0 + sigma * noise, sigma)
            torch.testing.assert_close(got, x0, rtol=1e-4, atol=1e-4)
    t = torch.tensor(0.3)
    flow = from_flow(lambda x, timestep: noise - x0)
    torch.testing.assert_close(flow((1 - t) * x0 + t * noise, t), x0)


def test_timesteps_between_the_tables_are_interpolated():
    table = schedule.to_sigma(ALPHA_BAR).float()
    between = (table[10] * table[11]).sqrt()
    assert denoiser.to_timestep(between, table).item() == pytest.approx(10.5, abs=1e-3)
    assert denoiser.to_timestep(torch.tensor(1e-9), table).item() == 0
    assert denoiser.to_timestep(torch.tensor(1e9), table).item() == 999


def test_clip_bounds_x0():
    denoise = from_x0(lambda x, t: 5 * x, ALPHA_BAR, clip=1.0)
    assert denoise(torch.full((1, 1), 9.0), torch.tensor(1.0)).item() == 1
