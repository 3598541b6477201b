"""`extreme` without trained weights: events, groups of pictures, both ways of deciding, the predictor."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import make_clip
from torch import Tensor

from gencodec.codec import CorruptStream, FrameType, Packet, UnsupportedStream, VideoInfo, Weights
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.flags import get_integers, put_integers
from gencodec.methods.extreme.codec import Extreme
from gencodec.methods.extreme.events import KEY, Event, EventReader, EventWriter
from gencodec.methods.extreme.gop import GopCoder, LastFrame
from gencodec.methods.extreme.network import PredictorConfig, PredictorNet
from gencodec.methods.extreme.predictor import FlowPredictor
from gencodec.methods.extreme.search import GopSearch
from gencodec.methods.intra.codec import KeyFrameCoder
from gencodec.nn.state import export_float
from gencodec.rate import ConstantQuality
from gencodec.sampler.noise import Noise
from gencodec.weights import load_named

INFO = VideoInfo(64, 48, Fraction(25))
NOISE = Noise(seed=3, first_frame=0)


class Drifting:
    """Shifts the last frame to the right, by as many pixels a frame as the noise of the candidate says."""

    past, predicted = 2, 5

    def __call__(self, frames: Tensor, noise: Noise, chunk: int, candidates: list[int]) -> Tensor:
        return torch.stack([self._one(frames[-1], self.speed(noise, chunk, c)) for c in candidates])

    def _one(self, frame: Tensor, speed: int) -> Tensor:
        return torch.stack([frame.roll(speed * (i + 1), -1) for i in range(self.predicted)])

    @staticmethod
    def speed(noise: Noise, chunk: int, candidate: int) -> int:
        return int(2 * noise.normal((1,), step=0, candidate=candidate, chunk=chunk))


@pytest.fixture(scope="module")
def key() -> KeyFrameCoder:
    return KeyFrameCoder(*load_named("intra-tiny-4"), "cpu")


def distance(source: Tensor, decoded: Tensor) -> Tensor:
    return (source.float() - decoded.float()).abs().mean((1, 2, 3)) / 255


def search(coder: GopCoder, frames: list[Tensor], quality: int = 40) -> GopSearch:
    return GopSearch(coder, frames, INFO, quality, NOISE, distance)


def decoded(coder: GopCoder, payload: bytes, count: int, quality: int = 40) -> list[Tensor]:
    _, events, keys = coder.read(payload, INFO, quality, count)
    return list(coder.render(events, keys, INFO, quality, NOISE))


def test_events_cost_what_the_facts_say() -> None:
    """Thirty frames, whatever happens: within about 33 bits at one candidate, log2 K more for each of K."""
    events = [Event(5), Event(5), Event(3), Event(KEY), Event(5), Event(5), Event(5)]
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


def test_a_still_clip_is_one_key_frame(key: KeyFrameCoder) -> None:
    coder, frames = GopCoder(key, LastFrame()), [make_clip(1, 64, 48)[0]] * 12
    events = search(coder, frames).greedy(0.1)
    assert [e.kept for e in events] == [5, 5, 1]
    payload, symbols = coder.write(frames, events, 40)
    alone = SymbolEncoder()
    key.encode(alone, frames[0], 40)
    assert len(payload) <= len(alone.finish()) + 4
    again, _, _ = coder.read(payload, INFO, 40, 12)
    assert all(np.array_equal(a, b) for a, b in zip(symbols, again, strict=True))
    shown = decoded(coder, payload, 12)
    assert len(shown) == 12
    assert all(torch.equal(frame, shown[0]) for frame in shown)


def test_frames_beyond_the_threshold_restart(key: KeyFrameCoder) -> None:
    """A cut: nothing before it helps behind it."""
    first, second = make_clip(1, 64, 48)[0], 255 - make_clip(1, 64, 48)[0]
    frames = [first] * 4 + [second] * 4
    coder = GopCoder(key, LastFrame())
    events = search(coder, frames).greedy(0.1)
    assert events == [Event(3), Event(KEY), Event(3)]
    shown = decoded(coder, coder.write(frames, events, 40)[0], 8)
    assert distance(torch.stack(frames), torch.stack(shown)).max() < 0.1


def test_no_threshold_at_all_codes_every_frame(key: KeyFrameCoder) -> None:
    frames = list(make_clip(4, 64, 48))
    assert search(GopCoder(key, LastFrame()), frames).greedy(0.0) == [Event(KEY)] * 3


def moving(speeds: list[int]) -> list[Tensor]:
    frames = [make_clip(1, 64, 48)[0]]
    for speed in speeds:
        frames.append(frames[-1].roll(speed, -1))
    return frames


def test_a_candidate_that_moves_as_the_clip_does_is_found(key: KeyFrameCoder) -> None:
    speeds = [Drifting.speed(NOISE, 0, c) for c in range(16)]
    wanted = next(speed for speed in speeds if abs(speed) > 1)
    frames = moving([wanted] * 5)
    (event,) = search(GopCoder(key, Drifting(), candidates=16), frames, 63).greedy(0.06)
    assert event.kept == 5
    assert speeds[event.candidate] == wanted


def test_encoder_and_decoder_show_the_same(key: KeyFrameCoder) -> None:
    """What was tried and dropped leaves no trace: the decoder runs only what the events say."""
    frames = moving([1, 1, 1, 3, 3, 3, -2, -2, -2, -2])
    coder = GopCoder(key, Drifting(), candidates=8)
    for events in (search(coder, frames, 63).greedy(0.06), search(coder, frames, 63).best(1e-4, 2)):
        payload, _ = coder.write(frames, events, 63)
        assert coder.read(payload, INFO, 63, len(frames))[1] == events
        once, twice = (decoded(coder, payload, len(frames), 63) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


def cost(found: GopSearch, coder: GopCoder, events: list[Event], price: float) -> float:
    payload, _ = coder.write(found.frames, events, found.quality)
    shown = decoded(coder, payload, len(found.frames), found.quality)
    away = distance(torch.stack(found.frames), torch.stack(shown))
    return float(away.sum()) + price * 8 * len(payload)


@pytest.mark.parametrize("price", [2e-6, 2e-5, 1e-4])
def test_weighing_rate_is_no_worse_than_any_threshold(key: KeyFrameCoder, price: float) -> None:
    coder = GopCoder(key, Drifting(), candidates=4)
    found = search(coder, moving([1, 1, 2, 3, 3, 0, 0, -2, -2, -2]))
    best = cost(found, coder, found.best(price, 4), price)
    greedy = [cost(found, coder, found.greedy(t), price) for t in (0.02, 0.05, 0.1, 0.2, 0.4)]
    assert best <= min(greedy) + price * 64  # events are weighed by an estimate of their bits


def test_damage(key: KeyFrameCoder) -> None:
    coder, frames = GopCoder(key, LastFrame()), [make_clip(1, 64, 48)[0]] * 7
    payload, _ = coder.write(frames, search(coder, frames).greedy(0.1), 40)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(100):  # a file's checksum sees them all; without it nothing worse than other frames comes
        broken = bytearray(payload)
        broken[generator.integers(len(broken))] ^= 1 << int(generator.integers(8))
        try:
            coder.read(bytes(broken).rstrip(b"\0"), INFO, 40, 7)
        except CorruptStream:
            refused += 1
    assert refused > 80
    with pytest.raises(CorruptStream):
        coder.read(payload, INFO, 40, 6)


def test_a_group_is_the_same_bytes_again(key: KeyFrameCoder) -> None:
    frames = moving([1, 1, 2, 2])
    coder = GopCoder(key, Drifting(), candidates=4)
    digests = {
        hashlib.sha256(coder.write(frames, search(coder, frames).greedy(0.05), 40)[0]).hexdigest()
        for _ in range(2)
    }
    assert len(digests) == 1


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


def test_sizes_of_the_predictor() -> None:
    with torch.device("meta"):
        net = PredictorNet()
    assert 7e6 < sum(p.numel() for p in net.parameters()) < 9e6
    assert net.multiple == 32


def test_untrained_it_repeats_the_last_frame_with_noise_around_it() -> None:
    frames = make_clip(2, 48, 32)
    offered = FlowPredictor(PredictorNet(SMALL), 2)(frames, NOISE, 0, [0])
    assert offered.shape == (1, 5, 3, 32, 48)
    away = offered[0].float() - frames[-1].float()
    assert abs(float(away.mean())) < 3
    assert 10 < float(away.std()) < 60


@pytest.mark.parametrize("size", [(16, 16), (30, 50), (1, 1)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_size_and_number_of_last_frames(size: tuple[int, int], count: int) -> None:
    predictor = FlowPredictor(small_net(), 2)
    frames = make_clip(3, size[1], size[0])[:count]
    offered = predictor(frames, NOISE, 1, [0, 5])
    assert offered.shape == (2, 5, 3, *size)
    if count == 3:
        assert torch.equal(offered, predictor(frames[1:], NOISE, 1, [0, 5]))


def test_what_a_candidate_offers_is_its_own() -> None:
    """But for rounding: encoders choose among many and then run the chosen one alone."""
    predictor, frames = FlowPredictor(small_net(), 4), make_clip(2, 48, 32)
    together = predictor(frames, NOISE, 2, [3, 0, 7])
    for place, candidate in enumerate([3, 0, 7]):
        alone = predictor(frames, NOISE, 2, [candidate])[0]
        different = (alone.int() - together[place].int()).abs()
        assert different.max() <= 1
        assert (different > 0).float().mean() < 1e-3
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together, predictor(frames, NOISE, 3, [3, 0, 7]))


def test_one_last_frame_is_not_two_equal_ones() -> None:
    predictor, frame = FlowPredictor(small_net(), 2), make_clip(1, 48, 32)
    twice = predictor(torch.cat([frame, frame]), NOISE, 0, [0])
    assert not torch.equal(predictor(frame, NOISE, 0, [0]), twice)


def test_a_group_by_the_network(key: KeyFrameCoder) -> None:
    coder = GopCoder(key, FlowPredictor(small_net(), 2), candidates=2)
    frames = list(make_clip(8, 64, 48))
    events = search(coder, frames).greedy(0.12)
    payload, _ = coder.write(frames, events, 40)
    assert len(decoded(coder, payload, 8)) == 8


# ---- the codec -------------------------------------------------------------------------------------------


def codec_of(**options: object) -> Extreme:
    tensors, metadata = load_named("intra-tiny-4")
    sizes = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(SMALL).items()}
    own = {n: t.contiguous() for n, t in export_float(small_net(), skip=()).items()}
    weights = Weights(
        "tiny",
        {"intra": tensors, "extreme": own},
        {"intra": metadata, "extreme": {"predictor": json.dumps(sizes)}},
        7,
    )
    return Extreme.load(weights, Extreme.pack_settings(**options), device="cpu")


def coded(codec: Extreme, frames: list[Tensor], quality: int = 30) -> tuple[list[Packet], list[Tensor]]:
    recon: list[Tensor] = []
    rate = ConstantQuality(quality)
    return list(codec.encode(iter(frames), INFO, rate, seed=5, on_recon=recon.append)), recon


@pytest.mark.parametrize(
    "options", [{}, {"candidates": 3, "threshold": 0.4}, {"beam": 2, "key_quality": 50, "steps": 2}]
)
def test_the_loop_is_closed(options: dict[str, object]) -> None:
    codec = codec_of(**options)
    frames = list(make_clip(33, 64, 48))
    symbols: list[list[np.ndarray]] = [[], []]
    recon: list[Tensor] = []
    rate = ConstantQuality(30)
    packets = list(
        codec.encode(iter(frames), INFO, rate, seed=5, on_recon=recon.append, on_symbols=symbols[0].append)
    )
    assert [(p.type, p.first_frame, p.num_frames) for p in packets] == [(0, 0, 30), (0, 30, 3)]
    again = codec_of(**options)
    assert again.settings == codec.settings
    decoded_frames = list(again.decode(packets, INFO, seed=5, on_symbols=symbols[1].append))
    assert len(decoded_frames) == len(recon) == 33
    assert all(torch.equal(a, b) for a, b in zip(recon, decoded_frames, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(*symbols, strict=True))
    alone = list(again.decode(packets[1:], INFO, seed=5))
    assert all(torch.equal(a, b) for a, b in zip(alone, decoded_frames[30:], strict=True))


def test_the_seed_is_what_candidates_are_drawn_from() -> None:
    codec = codec_of(threshold=2.0)
    packets, recon = coded(codec, list(make_clip(7, 64, 48)))
    other = list(codec.decode(packets, INFO, seed=6))
    assert torch.equal(other[0], recon[0])
    assert not torch.equal(other[3], recon[3])


def test_quality_and_threshold_set_the_rate() -> None:
    frames = moving([2, 2, 2, 3, 3, 1])
    sizes = [len(coded(codec_of(), frames, q)[0][0].payload) for q in (0, 30, 63)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]
    strict, lax = (len(coded(codec_of(threshold=t), frames)[0][0].payload) for t in (0.001, 3.0))
    assert lax < strict


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": 1.5},
        {"steps": True},
        {"candidates": 257},
        {"threshold": 0},
        {"threshold": 7},
        {"key_quality": 64},
        {"beam": -1},
        {"noise": 1},
    ],
)
def test_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Extreme.pack_settings(**options)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (b"", CorruptStream),
        (bytes(6), CorruptStream),
        (bytes(7), UnsupportedStream),
        (b"\4\0\xff\xff\xff\0", CorruptStream),
        (b"\4\0\0\0\x50\0", CorruptStream),
    ],
)
def test_settings_that_no_encoder_writes(settings: bytes, error: type[Exception]) -> None:
    codec = codec_of()
    weights = Weights("tiny", {}, {}, 7)
    with pytest.raises(error):
        type(codec).load(weights, settings, device="cpu")


def test_packets_that_no_encoder_writes() -> None:
    codec = codec_of()
    packets, _ = coded(codec, [make_clip(1, 64, 48)[0]] * 3)
    for wrong in (replace(packets[0], type=FrameType.PREDICTED), replace(packets[0], num_frames=31)):
        with pytest.raises(CorruptStream, match="INTRA packets of up to 30"):
            next(codec.decode([wrong], INFO))
