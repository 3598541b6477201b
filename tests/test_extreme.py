"""`extreme` without trained weights: events, groups of pictures, both ways of deciding, the predictor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_clip
from torch import Tensor
from torch.nn import functional

from gencodec import api
from gencodec.codec import CorruptStream, FrameType, Packet, UnsupportedStream, VideoInfo, Weights
from gencodec.container import Reader
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.flags import get_integers, put_integers
from gencodec.methods.extreme.codec import Extreme
from gencodec.methods.extreme.events import (
    INTER,
    KEY,
    PAN_LIMIT,
    PAN_UNIT,
    STILL,
    Event,
    EventReader,
    EventWriter,
)
from gencodec.methods.extreme.frames import CodedFrames
from gencodec.methods.extreme.gop import GopCoder, LastFrame
from gencodec.methods.extreme.motion import moved_on, pan_between, panned, velocity_of
from gencodec.methods.extreme.network import PredictorConfig, PredictorNet
from gencodec.methods.extreme.past import Past
from gencodec.methods.extreme.predictor import FlowPredictor
from gencodec.methods.extreme.search import GopSearch, Restart
from gencodec.methods.extreme.settings import REFERENCE, RESTARTS, Options
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.s2vc.loop import LoopCoder
from gencodec.methods.s2vc.rendering import Renderer
from gencodec.nn.motion import BLOCK
from gencodec.nn.state import export_float
from gencodec.rate import ConstantQuality
from gencodec.sampler.noise import Noise
from gencodec.weights import load_named

INFO = VideoInfo(64, 48, Fraction(25))
NOISE = Noise(seed=3, first_frame=0)


class Drifting:
    """Shifts the last frame to the right, by as many pixels a frame as the noise of the candidate says."""

    predicted = 5

    def __call__(self, past: Past, noise: Noise, chunk: int, candidates: list[int]) -> Tensor:
        return torch.stack([self._one(past.frames[-1], self.speed(noise, chunk, c)) for c in candidates])

    def _one(self, frame: Tensor, speed: int) -> Tensor:
        return torch.stack([frame.roll(speed * (i + 1), -1) for i in range(self.predicted)])

    @staticmethod
    def speed(noise: Noise, chunk: int, candidate: int) -> int:
        return int(2 * noise.normal((1,), step=0, candidate=candidate, chunk=chunk))


@pytest.fixture(scope="module")
def parts() -> tuple[LoopCoder, Renderer]:
    key = KeyFrameCoder(*load_named("intra-tiny-9"), "cpu")
    tensors, metadata = load_named("s2vc-tiny-6")
    renderer = Renderer(tensors, metadata["generator"], torch.device("cpu"), 32)
    return LoopCoder(tensors, key, metadata["fingerprint"], 1), renderer


Make = Callable[..., GopCoder]


@pytest.fixture
def make(parts: tuple[LoopCoder, Renderer]) -> Make:
    return lambda predictor, candidates=1: GopCoder(*parts, predictor, candidates)


def distance(source: Tensor, decoded: Tensor) -> Tensor:
    return (source.float() - decoded.float()).abs().mean((1, 2, 3)) / 255


def search(coder: GopCoder, frames: list[Tensor], quality: int = 40, **options: Any) -> GopSearch:
    return GopSearch(coder, frames, INFO, quality, NOISE, distance, **options)


def decoded(coder: GopCoder, payload: bytes, count: int, quality: int = 40) -> list[Tensor]:
    _, events, coded = coder.read(payload, INFO, quality, count)
    return list(coder.render(events, coded, INFO, NOISE))


def test_events_cost_what_the_facts_say() -> None:
    """Thirty frames, whatever happens: within about 33 bits at one candidate, log2 K more for each of K."""
    events = [Event(5), Event(5), Event(3), Event(INTER), Event(5), Event(5), Event(5)]
    before = np.arange(200, dtype=np.int32)  # a coder begins with 32 bits of state
    sizes = []
    for candidates, told in ((1, []), (1, events), (32, events)):
        encoder = SymbolEncoder()
        put_integers(encoder, before, 256)
        writer = EventWriter(encoder, 5, candidates)
        for event in told:
            writer.put(event)
        payload = encoder.finish()
        sizes.append(8 * len(payload))
        decoder = SymbolDecoder(payload)
        assert np.array_equal(get_integers(decoder, 200, 256), before)
        reader = EventReader(decoder, 5, candidates)
        assert [reader.get() for _ in told] == told
        decoder.finish()
    assert sizes[1] - sizes[0] <= 33
    assert sizes[2] - sizes[1] <= 6 * 5 + 8


def test_every_event_comes_back() -> None:
    told = [Event(KEY), Event(INTER), *(Event(n, 3 * n) for n in range(1, 6)), Event(INTER), Event(KEY)]
    told += [Event(3, 0, STILL, repeats=True), Event(2, 0, (1, 2), repeats=True)]
    told += [Event(5, 15, (-PAN_LIMIT, PAN_LIMIT)), Event(4, 0, (-PAN_LIMIT, PAN_LIMIT)), Event(1)]
    encoder = SymbolEncoder()
    writer = EventWriter(encoder, 5, 16)
    for event in told:
        writer.put(event)
    decoder = SymbolDecoder(encoder.finish())
    reader = EventReader(decoder, 5, 16)
    assert [reader.get() for _ in told] == told
    decoder.finish()


def test_a_still_clip_is_one_key_frame(make: Make) -> None:
    coder, frames = make(LastFrame()), [make_clip(1, 64, 48)[0]] * 12
    events = search(coder, frames).greedy(0.1)
    assert [e.kept for e in events] == [5, 5, 1]
    payload, symbols = CodedFrames(coder, frames, 40).write(events)
    alone = coder.loop.encode_key(frames[0], 40)[0]
    assert len(payload) <= len(alone) + 4
    again, _, _ = coder.read(payload, INFO, 40, 12)
    assert all(np.array_equal(a, b) for a, b in zip(symbols, again, strict=True))
    shown = decoded(coder, payload, 12)
    assert len(shown) == 12
    assert all(torch.equal(frame, shown[0]) for frame in shown)


def changing() -> list[Tensor]:
    """Four frames of one picture, then of its negative: nothing before helps behind that."""
    first = make_clip(1, 64, 48)[0]
    return [first] * 4 + [255 - first] * 4


def test_frames_beyond_the_threshold_restart(make: Make) -> None:
    frames, coder = changing(), make(LastFrame())
    events = search(coder, frames).greedy(0.1)
    assert [e.kept > 0 for e in events] == [True, False, True]
    assert [e.frames for e in events] == [3, 1, 3]
    shown = decoded(coder, CodedFrames(coder, frames, 40).write(events)[0], 8)
    assert distance(torch.stack(frames), torch.stack(shown)).max() < 0.1


def test_kinds_of_restarts(make: Make) -> None:
    """Against the last coded frame; alone; or alone, and the next against that one."""
    coder, frames = make(LastFrame()), changing()
    found: dict[Restart, list[int]] = {}
    for kind in RESTARTS:
        events = search(coder, frames, restart=kind).greedy(0.1)
        found[kind] = [e.kept for e in events]
        assert len(decoded(coder, CodedFrames(coder, frames, 40).write(events)[0], 8)) == 8
    assert found["inter"] in ([3, INTER, 3], [3, KEY, 3])  # whichever is smaller
    assert found["key"] == [3, KEY, 3]
    assert found["pair"] == [INTER, 2, KEY, INTER, 2]
    assert found["two-keys"] == [KEY, 2, KEY, KEY, 2]


def test_a_restart_against_the_last_frame_is_the_cheaper_one(make: Make) -> None:
    coder, frames = make(LastFrame()), moving([2, 2, 2, 2, 2, 2])
    sizes = {}
    for kind in ("inter", "key"):
        events = search(coder, frames, restart=kind).greedy(0.06)
        assert any(e.kept <= 0 for e in events)
        sizes[kind] = len(CodedFrames(coder, frames, 40).write(events)[0])
    assert sizes["inter"] < 0.8 * sizes["key"]


def test_no_threshold_at_all_codes_every_frame(make: Make) -> None:
    frames = list(make_clip(4, 64, 48))
    events = search(make(LastFrame()), frames).greedy(0.0)
    assert all(e.kept <= 0 for e in events)
    assert len(events) == 3


def test_no_more_than_thirty_frames_in_a_row_are_generated(make: Make) -> None:
    frames = [make_clip(1, 64, 48)[0]] * 50
    events = search(make(LastFrame()), frames).greedy(6.0)
    assert [e.kept for e in events] == [5] * 6 + [INTER] + [5] * 3 + [3]


def moving(speeds: list[int]) -> list[Tensor]:
    frames = [make_clip(1, 64, 48)[0]]
    for speed in speeds:
        frames.append(frames[-1].roll(speed, -1))
    return frames


def test_a_candidate_that_moves_as_the_clip_does_is_found(make: Make) -> None:
    speeds = [Drifting.speed(NOISE, 0, c) for c in range(16)]
    wanted = next(speed for speed in speeds if abs(speed) > 1)
    frames = moving([wanted] * 5)
    (event,) = search(make(Drifting(), 16), frames, 63).greedy(0.06)
    assert event.kept == 5
    assert speeds[event.candidate] == wanted


def test_encoder_and_decoder_show_the_same(make: Make) -> None:
    """What was tried and dropped leaves no trace: the decoder runs only what the events say."""
    frames = moving([1, 1, 1, 3, 3, 3, -2, -2, -2, -2])
    coder = make(Drifting(), 8)
    for events in (search(coder, frames, 63).greedy(0.06), search(coder, frames, 63).best(1e-4, 2)):
        payload, _ = CodedFrames(coder, frames, 63).write(events)
        assert coder.read(payload, INFO, 63, len(frames))[1] == events
        once, twice = (decoded(coder, payload, len(frames), 63) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


def cost(found: GopSearch, coder: GopCoder, events: list[Event], price: float) -> float:
    payload, _ = CodedFrames(coder, found.frames, found.quality).write(events)
    shown = decoded(coder, payload, len(found.frames), found.quality)
    away = distance(torch.stack(found.frames), torch.stack(shown))
    return float(away.sum()) + price * 8 * len(payload)


@pytest.mark.parametrize("price", [pytest.param(2e-6, marks=pytest.mark.slow), 2e-5])
def test_weighing_rate_is_no_worse_than_any_threshold(make: Make, price: float) -> None:
    coder = make(Drifting(), 4)
    found = search(coder, moving([1, 1, 2, 3, 3, 0, 0, -2, -2, -2]))
    best = cost(found, coder, found.best(price, 4), price)
    greedy = [cost(found, coder, found.greedy(t), price) for t in (0.02, 0.05, 0.1, 0.2, 0.4)]
    assert best <= min(greedy) + price * 64  # events are weighed by an estimate of their bits


def test_damage(make: Make) -> None:
    coder, frames = make(LastFrame()), [make_clip(1, 64, 48)[0]] * 7
    payload, _ = CodedFrames(coder, frames, 40).write(search(coder, frames).greedy(0.1))
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(40):  # a file's checksum sees them all; without it nothing worse than other frames comes
        broken = bytearray(payload)
        broken[generator.integers(len(broken))] ^= 1 << int(generator.integers(8))
        try:
            coder.read(bytes(broken).rstrip(b"\0"), INFO, 40, 7)
        except CorruptStream:
            refused += 1
    assert refused > 30
    with pytest.raises(CorruptStream):
        coder.read(payload, INFO, 40, 6)


def test_a_camera_that_pans_costs_next_to_nothing(make: Make) -> None:
    """What moves as a whole is shown so, for as long as it does; without pans every frame is a restart."""
    wide = smooth(128, 48)
    frames = [wide[:, :, 2 * t : 2 * t + 64].contiguous() for t in range(16)]
    coder = make(LastFrame())
    events = search(coder, frames).greedy(0.06)
    assert all(e.kept > 0 and abs(e.pan[0] - 2 * PAN_UNIT) <= 2 and abs(e.pan[1]) <= 2 for e in events)
    without = search(coder, frames, pans=False).greedy(0.06)
    assert {e.pan for e in without} == {STILL}
    assert any(e.kept == INTER for e in without)
    shown = decoded(coder, CodedFrames(coder, frames, 40).write(events)[0], 16)
    assert distance(torch.stack(frames), torch.stack(shown)).max() <= 0.06


def test_what_a_search_has_coded_is_written_as_it_is(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, coder = moving([1, 1, 9, 2]), make(Drifting())
    found = search(coder, frames)
    events = found.greedy(0.05)
    again = CodedFrames(coder, frames, 40).write(events)[0]
    for name in ("put", "put_key"):
        monkeypatch.setattr(coder.loop, name, None)
    assert found.coded_frames.write(events)[0] == again


def test_a_group_is_the_same_bytes_again(make: Make) -> None:
    frames = moving([1, 1, 2, 2])
    coder = make(Drifting(), 4)
    every = [search(coder, frames).greedy(0.05) for _ in range(2)]
    digests = {hashlib.sha256(CodedFrames(coder, frames, 40).write(e)[0]).hexdigest() for e in every}
    assert len(digests) == 1


# ---- what is known of the past ---------------------------------------------------------------------------


def test_the_past_is_kept_in_order() -> None:
    first, second, *others = make_clip(6, 64, 48)
    past = Past.of_key(first)
    assert (past.velocity, past.since, len(past.frames)) == (None, 0, 1)
    later = past.then(torch.stack(others[:3]))
    assert later.since == 3
    assert torch.equal(later.anchor, first)
    assert [torch.equal(a, b) for a, b in zip(later.frames, others[1:3], strict=True)] == [True, True]
    both = Past.of_key(first).keyed(second)
    assert [torch.equal(a, b) for a, b in zip(both.frames, (first, second), strict=True)] == [True, True]
    assert len(later.keyed(second).frames) == 1
    anew = later.restarted(second, torch.zeros(1, 2, 3, 4))
    assert (anew.since, anew.velocity is None) == (0, False)
    assert torch.equal(anew.anchor, second)
    assert torch.equal(anew.frames[0], others[2])


def test_the_anchor_moves_with_the_camera() -> None:
    picture = make_clip(1, 64, 48)[0]
    pan = (3, -PAN_UNIT)  # 0.75 pixels a frame to the right, one up
    past = Past(picture, (picture,), torch.ones(1, 2, 3, 4))
    steady = past.steadied(pan).velocity
    assert steady is not None
    assert steady[0, :, 0, 0].tolist() == [0.25, 2.0]
    later = past.then(torch.stack([picture] * 4), pan)
    assert torch.equal(later.anchor, panned(picture, pan, 4))
    assert torch.equal(later.anchor[:, 4:, :-3], picture[:, :-4, 3:])
    assert later.pan == pan
    assert Past.of_key(picture).steadied(pan).velocity is None


def smooth(width: int, height: int) -> Tensor:
    """A picture, uint8 (3,H,W), whose neighbouring pixels are alike, as in films."""
    small = make_clip(1, -(-width // 8), -(-height // 8)).float()
    large = functional.interpolate(small, scale_factor=8, mode="bicubic")[0, :, :height, :width]
    return large.clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("pan", [(0, 0), (8, 0), (-20, 12), (1, -3)])
def test_a_pan_is_found(pan: tuple[int, int]) -> None:
    still = smooth(160, 112)
    after = panned(still, pan, 3)
    found = pan_between(still, after, 3)
    inside = (..., slice(16, -16), slice(24, -24))
    assert torch.equal(panned(still, found, 3)[inside], after[inside])


@pytest.mark.parametrize("size", [(1, 1), (2, 70), (40, 5)])
def test_pans_of_tiny_frames(size: tuple[int, int]) -> None:
    frame = make_clip(1, *size)[0]
    assert pan_between(frame, frame, 2) == STILL
    assert panned(frame, (PAN_LIMIT, -PAN_LIMIT), 5).shape == frame.shape


def test_velocity_is_motion_over_time_without_its_outliers() -> None:
    motion = torch.zeros(1, 2, 8, 10)
    motion[:, 0] = 12
    motion[:, :, 4, 5] = -80
    velocity = velocity_of(motion, 3)
    assert torch.equal(velocity[:, 0], torch.full((1, 8, 10), 2.0))
    assert not velocity[:, 1].any()


def test_a_picture_moves_on_as_it_moved() -> None:
    picture = make_clip(1, 96, 64).float() / 255
    velocity = torch.zeros(1, 2, 64 // BLOCK, 96 // BLOCK)
    velocity[:, 0], velocity[:, 1] = 2, -1
    moved = moved_on(picture, velocity, torch.tensor([[1.0, 3.0]]))
    assert moved.shape == (1, 2, 3, 64, 96)
    for n, ahead in enumerate((1, 3)):
        wanted = picture.roll((ahead, -2 * ahead), (-2, -1))
        inside = (..., slice(8, -8), slice(8, -8))
        assert torch.allclose(moved[:, n][inside], wanted[inside], atol=1e-4)


# ---- the predictor ---------------------------------------------------------------------------------------

SMALL = PredictorConfig(unshuffle=2, widths=(16, 24), blocks=1, attention=(False, True))


def small_net(config: PredictorConfig = SMALL) -> PredictorNet:
    """With random numbers where training begins at zero."""
    torch.manual_seed(0)
    net = PredictorNet(config)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return net


def past_of(frames: Tensor, velocity: Tensor | None = None) -> Past:
    return Past(frames[0], tuple(frames[-2:]), velocity, len(frames) - 1)


def test_sizes_of_the_predictor() -> None:
    with torch.device("meta"):
        net = PredictorNet()
    assert 7e6 < sum(p.numel() for p in net.parameters()) < 9e6
    assert net.multiple == 32


def test_untrained_it_repeats_the_last_frame() -> None:
    frames = make_clip(2, 48, 32)
    offered = FlowPredictor(PredictorNet(SMALL), 2)(past_of(frames), NOISE, 0, [0])
    assert offered.shape == (1, 5, 3, 32, 48)
    away = (offered[0].int() - frames[-1].int()).abs()
    assert away.float().mean() < 3  # a trace of the frame before, which stands for the motion


@pytest.mark.parametrize("size", [(16, 16), (30, 50), (1, 1)])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("moved", [True, False])
def test_any_size_and_past(size: tuple[int, int], count: int, moved: bool) -> None:
    predictor = FlowPredictor(small_net(replace(SMALL, moved=moved)), 2)
    frames = make_clip(3, size[1], size[0])[:count]
    velocity = torch.ones(1, 2, -(-size[0] // 16), -(-size[1] // 16)) if count > 1 else None
    offered = predictor(past_of(frames, velocity), NOISE, 1, [0, 5])
    assert offered.shape == (2, 5, 3, *size)


def test_a_grey_predictor_shows_grey_frames() -> None:
    config = replace(SMALL, channels=1, moved=False)
    offered = FlowPredictor(small_net(config), 2)(past_of(make_clip(2, 48, 32)), NOISE, 0, [0])
    assert offered.shape == (1, 5, 3, 32, 48)
    assert torch.equal(offered[:, :, 0], offered[:, :, 2])


def test_what_a_candidate_offers_is_its_own() -> None:
    """But for rounding: encoders choose among many and then run the chosen one alone."""
    predictor, past = FlowPredictor(small_net(), 4), past_of(make_clip(2, 48, 32))
    together = predictor(past, NOISE, 2, [3, 0, 7])
    for place, candidate in enumerate([3, 0, 7]):
        alone = predictor(past, NOISE, 2, [candidate])[0]
        different = (alone.int() - together[place].int()).abs()
        assert different.max() <= 1
        assert (different > 0).float().mean() < 1e-3
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together, predictor(past, NOISE, 3, [3, 0, 7]))


def test_what_is_known_matters() -> None:
    """One last frame is not two equal ones; a velocity of zero is not an unknown one."""
    frame = make_clip(1, 48, 32)[0]
    grey = FlowPredictor(small_net(replace(SMALL, moved=False)), 2)
    one, two = (grey(Past(frame, (frame,) * n), NOISE, 0, [0]) for n in (1, 2))
    assert not torch.equal(one, two)
    predictor = FlowPredictor(small_net(), 2)
    still = Past(frame, (frame,), torch.zeros(1, 2, 2, 3))
    assert not torch.equal(predictor(still, NOISE, 0, [0]), predictor(Past.of_key(frame), NOISE, 0, [0]))


def test_a_group_by_the_network(make: Make) -> None:
    coder = make(FlowPredictor(small_net(), 2), 2)
    frames = list(make_clip(8, 64, 48))
    events = search(coder, frames).greedy(0.12)
    payload, _ = CodedFrames(coder, frames, 40).write(events)
    assert len(decoded(coder, payload, 8)) == 8


# ---- the codec -------------------------------------------------------------------------------------------


def codec_of(**options: object) -> Extreme:
    (intra, intra_data), (s2vc, s2vc_data) = (load_named(n) for n in ("intra-tiny-9", "s2vc-tiny-6"))
    sizes = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(SMALL).items()}
    own = {n: t.contiguous() for n, t in export_float(small_net(), skip=()).items()}
    weights = Weights(
        "tiny",
        {"intra": intra, "s2vc": s2vc, "extreme": own},
        {"intra": intra_data, "s2vc": s2vc_data, "extreme": {"predictor": json.dumps(sizes)}},
        7,
    )
    return Extreme.load(weights, Extreme.pack_settings(**options), device="cpu")


def coded(codec: Extreme, frames: list[Tensor], quality: int = 30) -> tuple[list[Packet], list[Tensor]]:
    recon: list[Tensor] = []
    rate = ConstantQuality(quality)
    return list(codec.encode(iter(frames), INFO, rate, seed=5, on_recon=recon.append)), recon


@pytest.mark.parametrize(
    "options",
    [
        {"gop_length": 7},
        {"candidates": 3, "threshold": 0.4, "gop_length": 7, "restart": "pair"},
        {"beam": 1, "key_quality": 50, "steps": 2, "gop_length": 7},
        {"steps": 0, "threshold": 0.1, "gop_length": 7, "restart": "key"},
    ],
)
def test_the_loop_is_closed(options: dict[str, object]) -> None:
    codec = codec_of(**options)
    frames = list(make_clip(9, 64, 48))
    symbols: list[list[np.ndarray]] = [[], []]
    recon: list[Tensor] = []
    rate = ConstantQuality(30)
    packets = list(
        codec.encode(iter(frames), INFO, rate, seed=5, on_recon=recon.append, on_symbols=symbols[0].append)
    )
    assert [(p.type, p.first_frame, p.num_frames) for p in packets] == [(0, 0, 7), (0, 7, 2)]
    again = codec_of(**options)
    assert again.settings == codec.settings
    decoded_frames = list(again.decode(packets, INFO, seed=5, on_symbols=symbols[1].append))
    assert len(decoded_frames) == len(recon) == 9
    assert all(torch.equal(a, b) for a, b in zip(recon, decoded_frames, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(*symbols, strict=True))
    alone = list(again.decode(packets[1:], INFO, seed=5))
    assert all(torch.equal(a, b) for a, b in zip(alone, decoded_frames[7:], strict=True))


def test_the_seed_is_what_candidates_are_drawn_from() -> None:
    codec = codec_of(threshold=2.0)
    packets, recon = coded(codec, list(make_clip(7, 64, 48)))
    other = list(codec.decode(packets, INFO, seed=6))
    assert torch.equal(other[0], recon[0])
    assert not torch.equal(other[3], recon[3])


def test_quality_and_threshold_set_the_rate() -> None:
    frames = moving([2, 2, 3, 1])
    sizes = [len(coded(codec_of(), frames, q)[0][0].payload) for q in (0, 30, 63)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]
    strict, lax = (len(coded(codec_of(threshold=t), frames)[0][0].payload) for t in (0.001, 3.0))
    assert lax < strict


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 256},
        {"steps": 1.5},
        {"steps": True},
        {"candidates": 257},
        {"threshold": 0},
        {"threshold": 7},
        {"key_quality": 64},
        {"beam": -1},
        {"noise": 1},
        {"restart": "none"},
        {"metric": "psnr"},
        {"gop_length": 0},
        {"sampler": "heun"},
        {"quirks": 2},
    ],
)
def test_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Extreme.pack_settings(**options)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (b"", CorruptStream),
        (bytes(10), CorruptStream),  # of length 0
        (bytes(11), UnsupportedStream),
        (b"\4\0\xff\xff\xff\0\0\0\x60\1", CorruptStream),
        (b"\4\0\0\0\x50\0\0\0\x60\1", CorruptStream),
        (b"\4\0\0\0\xff\0\4\0\x60\1", CorruptStream),
        (b"\4\0\0\0\xff\0\0\0\x60\x10", CorruptStream),
    ],
)
def test_settings_that_no_encoder_writes(settings: bytes, error: type[Exception]) -> None:
    codec = codec_of()
    weights = Weights("tiny", {}, {}, 7)
    with pytest.raises(error):
        type(codec).load(weights, settings, device="cpu")


def test_settings_come_back() -> None:
    for options in (
        Options(),
        Options(0, 256, 0.25, 63, 255, "pair", "ms-ssim", 255, 0, "dpmpp-2m", 1),
        Options(12, 8, 0.0001, None, 1, "key", "lpips", 1, 1, "ddpm"),
        Options(**REFERENCE),
    ):
        back = Options.unpack(options.pack())
        assert back == options._replace(threshold=back.threshold)
        assert back.threshold == pytest.approx(options.threshold) if options.threshold else not back.threshold


def test_frames_are_judged_by_what_one_likes() -> None:
    """By MS-SSIM as an option, or by any distance set before encoding."""
    frames = list(make_clip(3, 176, 176))
    info = VideoInfo(176, 176, Fraction(25))
    strict = codec_of(metric="ms-ssim", steps=0, threshold=0.0001)
    lax = codec_of(metric="ms-ssim", steps=0, threshold=0.9)
    own = codec_of(steps=0, threshold=0.1)
    own.distance = lambda source, shown: torch.zeros(len(source))
    sizes = [len(next(c.encode(iter(frames), info, ConstantQuality(20))).payload) for c in (strict, lax, own)]
    assert sizes[0] > 1.05 * sizes[2]
    assert sizes[2] <= sizes[1] < sizes[2] + 10


def test_packets_that_no_encoder_writes() -> None:
    codec = codec_of()
    packets, _ = coded(codec, [make_clip(1, 64, 48)[0]] * 3)
    for wrong in (replace(packets[0], type=FrameType.PREDICTED), replace(packets[0], num_frames=61)):
        with pytest.raises(CorruptStream, match="INTRA packets of up to 60"):
            next(codec.decode([wrong], INFO))


# ---- the registered codec, with the shipped weights ------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Extreme:
    codec = api.create("extreme", device="cpu")
    assert isinstance(codec, Extreme)
    return codec


def black(count: int) -> Tensor:
    return torch.zeros(count, 3, 48, 64, dtype=torch.uint8)


def noise(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 48, 64), generator=torch.Generator().manual_seed(0)).byte()


def cut(count: int) -> Tensor:
    """Two pictures that have nothing in common, with a cut between them."""
    dark, light = smooth(64, 48) // 4, 255 - smooth(64, 48) // 4
    first, second = dark, light.flip(2)
    return torch.stack([first] * (count // 2) + [second] * (count - count // 2))


@pytest.mark.parametrize(
    ("frames", "groups"),
    [
        (smooth(64, 48)[None], 1),
        (make_clip(31, 64, 48), 1),
        (black(12), 1),
        (noise(5), 1),
        (cut(12), 2),
        (make_clip(6, 37, 23), 1),
        (make_clip(3, 1, 1), 1),
    ],
    ids=["one frame", "31 frames", "black", "noise", "a cut", "odd sizes", "one pixel"],
)
def test_files_of_all_kinds(shipped: Extreme, tmp_path: Path, frames: Tensor, groups: int) -> None:
    file = tmp_path / "a.gcv"
    made = api.encode(frames, file, codec=shipped, quality=30)
    with file.open("rb") as stream:
        found = [gop.packets for gop in Reader(stream).gops()]
    assert len(found) == groups
    video = api.decode(file, device="cpu")
    shown = list(video)
    assert [f.shape for f in shown] == [f.shape for f in frames]
    assert video.result is not None
    assert video.result.latents_sha256 == made.latents_sha256


def test_a_damaged_group_is_refused_and_the_others_are_not(shipped: Extreme, tmp_path: Path) -> None:
    file = tmp_path / "a.gcv"
    api.encode(cut(12), file, codec=shipped, quality=30)
    whole = list(api.decode(file, device="cpu"))
    data = bytearray(file.read_bytes())
    with file.open("rb") as stream:
        reader = Reader(stream)
        first = next(iter(reader.gops())).packets[0]
        data[reader.header_bytes + len(first.payload) + 30] ^= 4  # in the second group
    file.write_bytes(data)
    with pytest.raises(CorruptStream):
        list(api.decode(file, device="cpu"))
    kept = list(api.decode(file, device="cpu", partial=True))
    assert len(kept) >= 6
    assert all(torch.equal(a, b) for a, b in zip(kept[:6], whole[:6], strict=True))


def predicts(codec: Extreme, packets: list[Packet]) -> bool:
    """Whether some frames come from the predictor; repeating the last one may be as good."""
    return any(e.kept > 0 and not e.repeats for e in codec.events_of(packets[0], INFO))


def test_symbols_are_the_same_however_it_is_computed(shipped: Extreme) -> None:
    """Threads, oneDNN, memory layout: symbols equal, pixels next to so."""
    frames = [smooth(80, 64)[:, :48, 2 * t : 2 * t + 64].contiguous() for t in range(8)]
    shipped.set_tune("psnr")  # events as this picture needs them
    files = (coded(shipped, frames, quality)[0] for quality in (32, 26, 10))
    packets = next(found for found in files if predicts(shipped, found))
    shipped.set_tune("lpips")
    predictor = shipped.coder.predictor
    assert isinstance(predictor, FlowPredictor)
    symbols, shown, threads = set(), [], torch.get_num_threads()
    try:
        for count, fast, layout in product(
            (1, 2), (True, False), (torch.channels_last, torch.contiguous_format)
        ):
            seen: list[np.ndarray] = []
            torch.set_num_threads(count)
            predictor.net.to(memory_format=layout)
            with torch.backends.mkldnn.flags(enabled=fast):
                shown.append(torch.stack(list(shipped.decode(packets, INFO, on_symbols=seen.append))))
            symbols.add(b"".join(array.tobytes() for array in seen))
    finally:
        torch.set_num_threads(threads)
        predictor.net.to(memory_format=torch.channels_last)
    assert len(symbols) == 1
    away = torch.stack([(s.int() - shown[0].int()).abs() for s in shown])
    assert away.max() <= 2
    assert (away > 0).float().mean() < 1e-2
