"""The codec `s2vc` beyond the laws: settings, groups of pictures, resets, damage, and the same symbols
however they are computed. Nothing here depends on how good the weights are.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden.regenerate import clip
from torch import Tensor

from gencodec import api
from gencodec.codec import (
    CorruptStream,
    FrameType,
    Packet,
    RateControl,
    UnsupportedStream,
    VideoInfo,
    Weights,
)
from gencodec.container import Reader
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.motion import LIMIT, code_field
from gencodec.entropy.prior import round_index
from gencodec.entropy.staged import predict_all
from gencodec.methods.intra.share_choice import Seen
from gencodec.methods.s2vc import loop, share_search
from gencodec.methods.s2vc.codec import MAX_PERIOD, S2vc
from gencodec.methods.s2vc.cuts import is_cut, windows_of
from gencodec.methods.s2vc.generator import Memory
from gencodec.methods.s2vc.lead import EVERY, GOLDEN_LEAD, LAST, MOST_LEAD, PAYING, led_quality
from gencodec.methods.s2vc.loop import Coded, LoopCoder, LoopState
from gencodec.methods.s2vc.model import CYCLE, WHOLE, CodingLoop, key_quality, level_of, motion_unit
from gencodec.methods.s2vc.rendering import Renderer
from gencodec.methods.s2vc.share_search import FIRST, LATER, ShareSearch
from gencodec.nn.motion import doubled
from gencodec.nn.shares import grid_of
from gencodec.rate import ConstantQuality, TargetBpp, TargetLpips

WIDTH, HEIGHT = 48, 32
FRAME_TOLERANCE = 2  # grey levels of 255, see docs/exact.md
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def codec() -> S2vc:
    created = api.create("s2vc", device="cpu")
    assert isinstance(created, S2vc)
    return created


@pytest.fixture
def _threads() -> Iterator[None]:
    """The number of threads comes back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def variant(codec: S2vc, *, gop_length: int = 96, reset_period: int = 32) -> S2vc:
    """The same networks under other settings."""
    renderer = copy.copy(codec.renderer)
    renderer.reset_period = reset_period
    return S2vc(codec.loop, renderer, gop_length, codec.preset, codec.weights_id)


def scene(seed: int, count: int, *, low: int = 20, high: int = 230, size: tuple[int, int] = (HEIGHT, WIDTH)):
    """Soft random patches that move to the left by 2 pixels a frame, uint8 (count,3,*size)."""
    height, width = size
    shape = (1, 3, height // 24 + 2, (width + 2 * count) // 24 + 2)
    patches = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    wide = F.interpolate(patches, scale_factor=24, mode="bicubic")[0].clamp(0, 1)
    pixels = (low + wide * (high - low)).round().to(torch.uint8)
    return torch.stack([pixels[:, :height, 2 * t : 2 * t + width] for t in range(count)])


def info_of(frames: Tensor) -> VideoInfo:
    return VideoInfo(frames.shape[3], frames.shape[2], Fraction(25), len(frames))


@dataclasses.dataclass
class Coding:
    """What one direction gave: packets of an encoder, frames as decoded, a hash of all symbols."""

    packets: list[Packet]
    frames: list[Tensor]
    symbols: Any = dataclasses.field(default_factory=hashlib.sha256)

    def add(self, symbols: np.ndarray) -> None:
        assert symbols.dtype == np.int32
        self.symbols.update(symbols.tobytes())


def encoded(codec: S2vc, frames: Tensor, rate: RateControl | None = None) -> Coding:
    out = Coding([], [])
    rate = rate or ConstantQuality(32)
    hooks: dict[str, Any] = {"on_recon": out.frames.append, "on_symbols": out.add}
    out.packets = list(codec.encode(frames, info_of(frames), rate, **hooks))
    return out


def decoded(codec: S2vc, packets: Iterable[Packet], frames: Tensor) -> Coding:
    out = Coding([], [])
    out.frames = list(codec.decode(packets, info_of(frames), on_symbols=out.add))
    return out


def are_equal(a: Iterable[Tensor], b: Iterable[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def closes(codec: S2vc, frames: Tensor, rate: RateControl | None = None) -> Coding:
    """Encode and decode; both directions have the same frames and symbols."""
    sent = encoded(codec, frames, rate)
    received = decoded(codec, sent.packets, frames)
    assert are_equal(sent.frames, received.frames)
    assert sent.symbols.digest() == received.symbols.digest()
    assert [f.shape for f in received.frames] == [f.shape for f in frames]
    return sent


def starts(packets: Iterable[Packet]) -> list[int]:
    return [packet.first_frame for packet in packets if packet.type is FrameType.INTRA]


# ---- settings ----------------------------------------------------------------------------------------------


def test_settings_are_two_numbers_of_two_bytes() -> None:
    assert S2vc.pack_settings() == bytes([96, 0, 32, 0])
    assert S2vc.pack_settings(reset_period=8) == bytes([96, 0, 8, 0])
    assert S2vc.pack_settings(gop_length=MAX_PERIOD) == bytes([0, 16, 32, 0])


def test_settings_go_round() -> None:
    options: dict[str, Any] = {"gop_length": 300, "reset_period": 7}
    made = api.create("s2vc", device="cpu", **options)
    assert isinstance(made, S2vc)
    assert (made.gop_length, made.renderer.reset_period) == (300, 7)
    assert made.settings == S2vc.pack_settings(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"gop_length": 0},
        {"gop_length": MAX_PERIOD + 1},
        {"gop_length": True},
        {"gop_length": "96"},
        {"reset_period": -1},
        {"reset_period": 2.0},
        {"reset_period": None},
        {"clip_length": 4},
    ],
)
def test_other_options_are_refused(options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        S2vc.pack_settings(**options)


@pytest.mark.parametrize(
    "settings",
    [
        b"",
        bytes([96]),
        bytes([96, 0, 32]),
        bytes([0, 0, 32, 0]),
        bytes([96, 0, 0, 0]),
        bytes([1, 16, 32, 0]),
        bytes([96, 0, 255, 255]),
    ],
)
def test_settings_that_no_encoder_writes_are_refused(settings: bytes) -> None:
    with pytest.raises(CorruptStream):
        S2vc.load(Weights("tiny", {}, {}, 0), settings, device="cpu")


def test_settings_of_a_newer_version_are_said_so() -> None:
    with pytest.raises(UnsupportedStream, match="newer"):
        S2vc.load(Weights("tiny", {}, {}, 0), S2vc.pack_settings() + b"\1", device="cpu")


# ---- groups of pictures ------------------------------------------------------------------------------------


def test_a_gop_ends_at_its_length(codec: S2vc) -> None:
    packets = list(variant(codec, gop_length=3).encode(*_source(scene(0, 7)), ConstantQuality(20)))
    assert starts(packets) == [0, 3, 6]
    assert [packet.num_frames for packet in packets] == [1] * 7
    assert [packet.first_frame for packet in packets] == list(range(7))


def test_gops_of_one_frame_are_key_frames(codec: S2vc) -> None:
    sent = closes(variant(codec, gop_length=1, reset_period=1), scene(0, 3))
    assert starts(sent.packets) == [0, 1, 2]


def test_a_cut_begins_a_gop_and_its_count(codec: S2vc) -> None:
    frames = torch.cat([scene(0, 2, low=5, high=80), scene(1, 5, low=160, high=250)])
    short = variant(codec, gop_length=4)
    assert starts(closes(short, frames).packets) == [0, 2, 6]
    windows = [(w.first_frame, len(w.frames), w.is_key) for w in windows_of(frames, short.gop_length, 32)]
    assert windows == [(0, 2, True), (2, 4, True), (6, 1, True)]
    windows = [(w.first_frame, len(w.frames), w.is_key) for w in windows_of(frames, short.gop_length, 3)]
    assert windows == [(0, 2, True), (2, 3, True), (5, 1, False), (6, 1, True)]


def mosaic(seed: int) -> Tensor:
    """Grey squares of 8 pixels, uint8 (3,128,192)."""
    squares = torch.randint(0, 256, (16, 24), generator=torch.Generator().manual_seed(seed))
    return squares.repeat_interleave(8, 0).repeat_interleave(8, 1).repeat(3, 1, 1).to(torch.uint8)


def clouds(seed: int) -> Tensor:
    """Soft grey shapes, uint8 (3,192,448), with room for a pan around."""
    rough = torch.rand(1, 1, 3, 7, generator=torch.Generator().manual_seed(seed))
    soft = F.interpolate(rough, size=(208, 464), mode="bicubic").clamp(0, 1)[0]
    return (20 + 200 * soft).repeat(3, 1, 1).to(torch.uint8)


LARGE = scene(2, 9, size=(128, 192))


@pytest.mark.parametrize(
    ("before", "after", "cut"),
    [
        (LARGE[0], LARGE[0], False),
        (LARGE[0], LARGE[1], False),
        (LARGE[0], LARGE[8], False),  # a pan by 16 pixels
        (LARGE[0], LARGE[1] + 4, False),  # with a drift of brightness
        (LARGE[0], LARGE[0] // 2 * 2 + 1, False),
        (mosaic(0), mosaic(0).roll((8, -24), (1, 2)), False),
        (torch.zeros(3, 64, 64), torch.ones(3, 64, 64), False),
        (mosaic(0), mosaic(1), True),
        (mosaic(0) // 8, mosaic(0) // 8 + 55, False),  # fading in
        (mosaic(0) // 4, mosaic(0) // 2, False),
        (clouds(1)[:, :192, :448], clouds(10)[:, :192, :448], True),
        (clouds(1)[:, :192, :448], clouds(1)[:, 16:, 16:], False),
        (scene(0, 1, low=5, high=80)[0], scene(0, 1, low=160, high=250)[0], True),
        (torch.zeros(3, 40, 40), torch.full((3, 40, 40), 128), True),
    ],
)
def test_what_is_a_cut(before: Tensor, after: Tensor, cut: bool) -> None:
    assert is_cut(before.to(torch.uint8), after.to(torch.uint8)) is cut


def test_a_pan_is_no_cut_however_large_the_picture_is() -> None:
    wide = clouds(3).repeat_interleave(4, 1).repeat_interleave(4, 2)
    rough = torch.randint(0, 60, (1, *wide.shape[1:]), generator=torch.Generator().manual_seed(0))
    wide = (wide.int() + rough).clamp(0, 255).to(torch.uint8)
    before, after = wide[:, :720, :1600], wide[:, 64:784, 160:1760]
    assert not is_cut(before, after)
    assert is_cut(before, wide.flip(2)[:, :720, :1600])


# ---- smooth edges ------------------------------------------------------------------------------------------


def test_anchors_tell_how_smooth_edges_are(codec: S2vc, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides smooth by what was told last, frames between anchors too."""
    frames, shown = scene(2, 14), []
    for strengths in ([0, 0], [3, 0], [2, 1]):
        told = iter(strengths)

        def choose(*seen: Any, told: Iterator[int] = told, **_: Any) -> np.ndarray:
            return np.full_like(seen[5], next(told))

        monkeypatch.setattr(loop, "choose_edges", choose)
        shown.append(closes(codec, frames).frames)
        assert list(told) == [], "the anchors of ages 4 and 12 are looked at"
    for others in shown[1:]:
        same = [torch.equal(a, b) for a, b in zip(shown[0], others, strict=True)]
        assert same[:4] == [True] * 4
        assert not any(same[4:12])


# ---- resets ------------------------------------------------------------------------------------------------


def coded_gop(codec: S2vc, frames: Tensor, quality: int) -> list[Coded]:
    _, coded = codec.loop.encode_key(frames[0], quality)
    gop = [coded]
    for frame in frames[1:]:
        _, coded = codec.loop.encode(frame, coded.state, quality)
        gop.append(coded)
    return gop


def test_a_reset_needs_the_coded_frame_alone(codec: S2vc) -> None:
    frames = scene(0, 5)
    info, renderer = info_of(frames), variant(codec, reset_period=2).renderer
    gop = coded_gop(codec, frames, 40)
    _, memory = renderer.render(gop[0], None, info)
    noise = torch.Generator().manual_seed(0)
    other = memory._replace(features=torch.randn(memory.features.shape, generator=noise))
    for age, coded in enumerate(gop):
        assert coded.state.age == age
        kept, forgot, changed = (renderer.render(coded, m, info)[1].features for m in (memory, None, other))
        assert torch.equal(kept, forgot) is torch.equal(kept, changed) is (age % 2 == 0)


def test_resets_do_not_touch_what_is_coded(codec: S2vc, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are behind the loop: but for shares of the repair, the period changes no payload."""
    monkeypatch.setattr(ShareSearch, "watched", lambda _, watch, *__: (watch, None))
    frames = scene(0, 4)
    packets = [encoded(variant(codec, reset_period=period), frames).packets for period in (1, 2, 32)]
    assert packets[0] == packets[1] == packets[2]


@pytest.mark.parametrize("period", [1, 3])
def test_both_sides_agree_over_resets(codec: S2vc, period: int) -> None:
    closes(variant(codec, reset_period=period), scene(0, 7 if period > 1 else 3))


@pytest.mark.parametrize("quality", [0, 5, 31, 63])
def test_levels_and_key_frames_follow_the_quality(quality: int) -> None:
    """One frame in CYCLE is an anchor, finer than those between; the key frame is at least as good."""
    levels = [level_of(quality, age) for age in range(2 * CYCLE)]
    anchors = [age for age in range(2 * CYCLE) if levels[age] == max(levels)]
    assert anchors == [0, CYCLE]
    assert len(set(levels)) == 2
    assert all(0 <= level <= 63 for level in levels)
    assert max(levels) == 28 + 35 * quality // 63, "as the page says"
    low = 3 * max(10 - quality, 0) // 2
    assert key_quality(quality) == min(18 + 21 * quality // 20, 63) - low


# ---- rate control ------------------------------------------------------------------------------------------


class Bpp(TargetBpp):
    """Windows short enough for a test."""

    window: ClassVar[int] = 4


class Distance(TargetLpips):
    """The same."""

    window: ClassVar[int] = 2


@pytest.mark.parametrize("rate", [ConstantQuality(30), Bpp(0.3)], ids=["constant", "bpp"])
def test_encoders_render_for_the_choice_of_shares_alone(
    codec: S2vc, monkeypatch: pytest.MonkeyPatch, rate: RateControl
) -> None:
    """Behind a reset, up to the frame at which shares are chosen; without that choice never."""
    ages: list[int] = []
    generate = Renderer.generate

    def noted(self: Renderer, coded: Coded, memory: Memory | None) -> tuple[Tensor, Memory]:
        ages.append(coded.state.age)
        return generate(self, coded, memory)

    monkeypatch.setattr(Renderer, "generate", noted)
    frames = scene(0, LATER + 3)
    list(codec.encode(*_source(frames), rate))
    assert sorted(set(ages)) == [1, 2, LATER]
    ages.clear()
    monkeypatch.setattr(codec, "search", None)
    assert len(list(codec.encode(*_source(frames), rate))) == len(frames)
    assert not ages


def told(codec: S2vc, packets: list[Packet], frames: Tensor) -> list[int]:
    """Ages of the frames that come with new shares, over all groups of pictures."""
    ages, state = [], None
    for packet in packets:
        if packet.type == FrameType.INTRA:
            coded = codec.loop.decode_key(packet.payload, info_of(frames), packet.quality)
        else:
            assert state is not None
            coded = codec.loop.decode(packet.payload, state, packet.quality)
        state = coded.state
        ages += [state.age] * (coded.told is not None)
    return ages


def test_shares_are_told_behind_a_key_frame_and_behind_resets(
    codec: S2vc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never by the key frame, which is finer than the rest; the choice here is another one each time."""
    numbers = iter(range(1000))

    def another(seen: tuple[Seen, ...], *_: object) -> np.ndarray:
        judged.append(len(seen))
        return np.full(grid_of(HEIGHT, WIDTH), next(numbers) % 6, np.int32)

    judged: list[int] = []
    monkeypatch.setattr(share_search, "choose_shares", another)
    short = variant(codec, gop_length=16, reset_period=10)
    frames = scene(0, 20)
    sent = closes(short, frames)
    assert told(short, sent.packets, frames) == [FIRST, LATER, 10 + LATER, FIRST]
    assert judged == [1, 3, 3, 1]


def test_shares_hold_until_others_come(codec: S2vc, monkeypatch: pytest.MonkeyPatch) -> None:
    """No repair at all from the first choice on, plain rendering before it and in the next group."""
    nothing = np.zeros(grid_of(HEIGHT, WIDTH), np.int32)
    monkeypatch.setattr(share_search, "choose_shares", lambda *args: None if args[4] is not None else nothing)
    short, frames = variant(codec, gop_length=6), scene(0, 8)
    sent = encoded(short, frames)
    short.search = None
    plain = encoded(short, frames)
    equal = [torch.equal(a, b) for a, b in zip(sent.frames, plain.frames, strict=True)]
    assert equal == [n in (0, 6) for n in range(8)]


@pytest.mark.parametrize("rate", [Bpp(0.25), Distance(0.3)], ids=["bpp", "lpips"])
def test_rates_are_controlled_within_a_gop(codec: S2vc, rate: RateControl) -> None:
    """A group of pictures longer than a window: each window has its quality, the loop goes on."""
    assert (TargetBpp.window, TargetLpips.window, ConstantQuality.window) == (32, 32, 1)
    frames = scene(0, 5 if isinstance(rate, Distance) else 9)
    sent = closes(codec, frames, rate)
    assert starts(sent.packets) == [0]
    for first in range(0, len(frames), rate.window):
        qualities = [packet.quality for packet in sent.packets[first : first + rate.window]]
        ages = range(first, first + len(qualities))
        asked = next(q for age, q in zip(ages, qualities, strict=True) if age % EVERY)
        assert qualities == [led_quality(asked, age, codec.gop_length) for age in ages]


def test_key_frames_and_every_third_anchor_lead(codec: S2vc) -> None:
    frames, length = scene(0, EVERY + 2), codec.gop_length
    packets = list(codec.encode(*_source(frames), ConstantQuality(30)))
    assert [p.quality for p in packets] == [led_quality(30, age, length) for age in range(EVERY + 2)]
    assert {led_quality(30, age, length) for age in range(1, EVERY)} == {30}
    assert EVERY % CYCLE == 0, "only anchors are seen for long"
    assert [led_quality(q, 0, 96) for q in (0, 3, 63)] == [0, 6, 63]
    assert [led_quality(q, EVERY, 96) for q in (0, 3, 63)] == [0, 6, 63], "0 asks for the least"
    assert led_quality(8, 5 * EVERY, 240) - 8 == MOST_LEAD, "where age has taken it, more is due"


def test_leads_grow_with_age_and_end_with_the_group() -> None:
    golden = [led_quality(30, age, 400) - 30 for age in range(EVERY, 400, EVERY)]
    most = golden.index(MOST_LEAD)
    assert golden[0] == GOLDEN_LEAD
    assert golden[: most + 1] == sorted(golden[: most + 1]), "leads grow with age ..."
    assert golden[most:] == sorted(golden[most:], reverse=True), "... up to a limit ..."
    to_come = [399 - n * EVERY for n in (31, 32, 33)]
    assert golden[-3:] == [max(0, n - LAST) // PAYING for n in to_come], "... and pay for little at the end"
    assert golden[-1] == 0
    assert led_quality(30, EVERY, EVERY + 1) == 30, "the last frame"


# ---- packets that are wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "packet", [Packet(FrameType.PREDICTED, 9, 0, 1, b""), Packet(FrameType.INTRA, 9, 0, 2, b"")]
)
def test_packets_that_no_encoder_writes_are_refused(codec: S2vc, packet: Packet) -> None:
    with pytest.raises(CorruptStream):
        list(codec.decode([packet], VideoInfo(WIDTH, HEIGHT, Fraction(25), 1)))


@pytest.mark.parametrize("steps", [LIMIT + 1, -LIMIT - 1, 32767])
def test_motion_beyond_its_limit_is_refused(codec: S2vc, steps: int) -> None:
    _, key = codec.loop.encode_key(scene(0, 1)[0], 30)
    encoder = SymbolEncoder()
    codec.loop.motion.encode(encoder, np.full((2, HEIGHT // 16, WIDTH // 16), steps, np.int32))
    with pytest.raises(CorruptStream, match="motion"):
        codec.loop.decode(encoder.finish(), key.state, 30)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 5), (1, 17), (9, 1), (16, 28), (17, 11)])
def test_motion_fields_of_any_size_come_back(codec: S2vc, shape: tuple[int, int]) -> None:
    field = np.random.default_rng(0).integers(-LIMIT, LIMIT + 1, (2, *shape)).astype(np.int32)
    smooth = (field // 64).cumsum(1).clip(-LIMIT, LIMIT).astype(np.int32)
    for wanted in (field, smooth, np.zeros_like(field)):
        encoder = SymbolEncoder()
        sent = codec.loop.motion.encode(encoder, wanted)
        decoder = SymbolDecoder(encoder.finish())
        found, received = codec.loop.motion.decode(decoder, shape)
        decoder.finish()
        assert np.array_equal(found, wanted)
        assert len(sent[0]) + sum(len(choices) for choices in sent[2::3]) == wanted[0].size  # each once
        assert all(np.array_equal(a, b) for a, b in zip(sent, received, strict=True))


def test_damaged_payloads_give_frames_or_corrupt_stream(codec: S2vc) -> None:
    """The CRC is the container's; what a codec is handed all the same may be anything."""
    frames = scene(0, 2, size=(16, 24))
    _, key = codec.loop.encode_key(frames[0], 50)
    payload, _ = codec.loop.encode(frames[1], key.state, 50)
    step = max(1, len(payload) // 15)
    broken = [payload[:cut] for cut in range(0, len(payload), step)]
    broken += [
        payload[:i] + bytes([payload[i] ^ 0x55]) + payload[i + 1 :] for i in range(0, len(payload), step)
    ]
    for data in [*broken, payload + b"\1", b"\xff" * 300, b""]:
        try:
            coded = codec.loop.decode(data, key.state, 50)
        except CorruptStream:
            continue
        frame, _ = codec.renderer.render(coded, None, info_of(frames))
        assert (frame.shape, frame.dtype) == (frames[1].shape, torch.uint8)


def test_a_damaged_gop_is_refused_and_the_next_one_decodes(codec: S2vc) -> None:
    frames, file = scene(0, 6), io.BytesIO()
    api.encode(frames, file, codec=variant(codec, gop_length=2), quality=30, fps=25)
    stream = file.getvalue()
    whole = list(api.decode(io.BytesIO(stream), device="cpu"))
    gops = list(Reader(io.BytesIO(stream)).gops())
    assert [gop.first_frame for gop in gops] == [0, 2, 4]
    place = gops[1].offset + gops[1].size - 5
    damaged = stream[:place] + bytes([stream[place] ^ 4]) + stream[place + 1 :]
    video, came = api.decode(io.BytesIO(damaged), device="cpu"), []
    with pytest.raises(CorruptStream):  # noqa: PT012 - what came before counts
        for frame in video:
            came.append(frame)
    assert are_equal(came, whole[:2])
    assert are_equal(video.seek(4), whole[4:])
    assert are_equal(api.decode(io.BytesIO(damaged), device="cpu", partial=True), whole[:2] + whole[4:])


# ---- pictures of all kinds ---------------------------------------------------------------------------------


def noise(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)


PICTURES = {
    "1x1": scene(0, 2, size=(1, 1)),
    "16x16": scene(0, 2, size=(16, 16)),
    "17x33": scene(0, 2, size=(33, 17)),
    "100x70": clip(2),
    "one": scene(0, 1),
    "black": torch.zeros(3, 3, HEIGHT, WIDTH, dtype=torch.uint8),
    "white": torch.full((2, 3, HEIGHT, WIDTH), 255, dtype=torch.uint8),
    "noise": noise(3),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("quality", [0, 63])
def test_any_picture_comes_back(codec: S2vc, name: str, quality: int) -> None:
    closes(codec, PICTURES[name], ConstantQuality(quality))


def test_frames_may_lie_in_memory_in_any_order(codec: S2vc) -> None:
    frames = clip(3)[..., :HEIGHT, :WIDTH]
    interleaved = frames.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not interleaved[0].is_contiguous()
    plain = encoded(codec, frames)
    other = closes(codec, interleaved)
    assert other.symbols.digest() == plain.symbols.digest()


# ---- the same symbols --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moving(codec: S2vc) -> tuple[Tensor, Coding]:
    """A clip over a reset, and its coding."""
    frames = clip(4)[..., :64, 20:84]
    return frames, encoded(variant(codec, reset_period=3), frames, ConstantQuality(45))


@pytest.mark.filterwarnings("ignore:TF32")  # leaving `flags` sets what this build has no use for
@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("one_dnn", [True, False])
def test_symbols_do_not_depend_on_how_they_are_computed(
    codec: S2vc, moving: tuple[Tensor, Coding], threads: int, one_dnn: bool
) -> None:
    frames, sent = moving
    torch.set_num_threads(threads)
    with torch.backends.mkldnn.flags(enabled=one_dnn):
        received = decoded(variant(codec, reset_period=3), sent.packets, frames)
    assert received.symbols.digest() == sent.symbols.digest()
    for a, b in zip(received.frames, sent.frames, strict=True):
        assert int((a.int() - b.int()).abs().max()) <= FRAME_TOLERANCE


# ---- sizes -------------------------------------------------------------------------------------------------


@torch.inference_mode()
def estimated_bits(coder: LoopCoder, state: LoopState, coded: Coded, quality: int) -> float:
    """What a predicted frame's symbols cost by the stored tables."""
    level = torch.tensor([level_of(quality, state.age + 1)])
    motion = 2 * coded.frame.flow
    y_hat = (coded.frame.scaled * coder.loop.gains[level]).round()
    prior = coder.loop.latents.prior
    moved = coder.loop.moved(state.memory, motion)
    unit = motion_unit(quality)
    before = None if state.motion is None else state.motion // unit
    bits = coder.motion.bits(motion[0].int().numpy() // unit, before)
    turns = prior.turns(*y_hat.shape[2:])
    found = zip(turns, predict_all(prior, y_hat, level, moved), coded.symbols[-len(turns) :], strict=True)
    for turn, (_, index), symbols in found:
        assert np.array_equal(turn.of(y_hat)[0][turn.mask].int().numpy(), symbols)
        tables = round_index(index)[0][turn.mask].int().numpy()
        bits += float(coder.latents.tables.bits(symbols, tables).sum())
    return bits


@pytest.mark.parametrize("quality", [10, 40, 63])
def test_real_sizes_are_the_estimated_ones(codec: S2vc, quality: int) -> None:
    coder, frames = codec.loop, clip(4, 80, 112)
    _, coded = coder.encode_key(frames[0], quality)
    real = estimated = 0.0
    for frame in frames[1:]:
        state = coded.state
        payload, coded = coder.encode(frame, state, quality)
        real += 8 * len(payload)
        estimated += estimated_bits(coder, state, coded, quality)
    assert abs(real - estimated) <= 0.002 * estimated + 3 * 40  # the coder's last words


@torch.inference_mode()
def test_symbols_are_those_that_training_sees(codec: S2vc) -> None:
    """Records hold what `CodingLoop` quantises."""
    coder, frames = codec.loop, clip(2, 64, 96)
    _, key = coder.encode_key(frames[0], 60)
    _, coded = coder.encode(frames[1], key.state, 60)
    q, level = torch.tensor([60]), torch.tensor([level_of(60, 1)])
    _, y_hat, motion = coder.loop(frames[1:].float() / 255, key.state.picture, q, level)
    assert torch.equal(motion, 2 * coded.frame.flow)
    found = (coded.frame.scaled * coder.loop.gains[level]).round()
    assert torch.equal(found, torch.where(found == 0, 0, y_hat))  # but for what its table skips


@torch.inference_mode()
@pytest.mark.parametrize("quality", [35, 36])
def test_motion_is_in_whole_pixels_below_a_quality(codec: S2vc, quality: int) -> None:
    frames = clip(3, 80, 112)
    _, coded = codec.loop.encode_key(frames[0], quality)
    half = doubled(frames[:1].float())[0, :, ::2, 1::2]  # half a pixel to the left
    between = half.round().clamp(0, 255).to(torch.uint8)
    _, coded = codec.loop.encode(between, coded.state, quality)
    assert coded.state.motion is not None
    is_whole = not (coded.state.motion % 2).any()
    assert is_whole is (quality < WHOLE)


# ---- the page ----------------------------------------------------------------------------------------------


def test_the_methods_page_names_what_exists() -> None:
    """Rows name code as `path.py` or `path.py: Name.attribute, name`, below gencodec/."""
    text = (ROOT / "docs" / "methods" / "s2vc.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z0-9_/]+\.py)(?:: ([\w., ]+))?`", text)
    assert len(named) > 30
    for path, names in named:
        module: Any = import_module("gencodec." + path.removesuffix(".py").replace("/", "."))
        for name in filter(None, names.split(", ")):
            first, *rest = name.split(".")
            found = getattr(module, first)
            for part in rest:
                source = Path(module.__file__).read_text(encoding="utf-8")
                assert hasattr(found, part) or f"self.{part}" in source, f"{path}: {name}"


Stage = tuple[list[int], list[int]]  # symbols, tables


def neighbours_of_the_page(
    field: np.ndarray, place: tuple[int, int], around: list[tuple[int, int]]
) -> list[list[int]]:
    """Vectors of a block's neighbours, as that section has them."""
    height, width = field.shape[1:]
    near = []
    for down, right in around:
        row = place[0] + down if 0 <= place[0] + down < height else place[0] - down
        column = place[1] + right if 0 <= place[1] + right < width else place[1] - right
        near.append((row, column) if 0 <= row < height and 0 <= column < width else None)
    first = next((there for there in near if there), None)
    return [vector_at(field, there or first) for there in near]


def vector_at(field: np.ndarray, place: tuple[int, int] | None) -> list[int]:
    return [int(v) for v in field[:, place[0], place[1]]] if place else [0, 0]


def stages_of_the_page(field: np.ndarray, before: np.ndarray | None) -> list[Stage]:
    """Section "Motion in 20 stages" of the page, word for word."""
    height, width = field.shape[1:]
    groups: list[Any] = [([(r, c) for r in range(0, height, 8) for c in range(0, width, 8)], [], 0)]
    for n, s in enumerate((4, 2, 1)):
        between, even = (range(first, max(height, width), 2 * s) for first in (s, 0))

        def inside(rows: range, columns: range) -> list[tuple[int, int]]:
            return [(r, c) for r in rows for c in columns if r < height and c < width]

        groups.append((inside(between, between), [(-s, -s), (-s, s), (s, -s), (s, s)], n))
        sides = inside(even, between) + inside(between, even)
        groups.append((sides, [(0, -s), (0, s), (-s, 0), (s, 0)], n))
    stages: list[Stage] = []
    for number, (places, around, n) in enumerate(groups):
        parts: list[Stage] = [([], []), ([], []), ([], [])]  # choices, differences of x, of y
        for r, c in places:
            known = neighbours_of_the_page(field, (r, c), around)
            middle = [sorted(v[k] for v in known)[1:3] if number else [0, 0] for k in range(2)]
            expected = [(sum(m) + 1) // 2 for m in middle]
            if before is not None and not number:
                expected = vector_at(before, (r, c))
            own = vector_at(field, (r, c))
            missed = [own[k] - expected[k] for k in range(2)]
            tables = [0, 1]
            if number:
                there = [] if before is None else [vector_at(before, (r, c))]
                candidates: list[list[int]] = []
                for vector in [expected, *there, *known]:
                    candidates += [] if vector in candidates else [vector]
                g, f = known.count(expected), int(before is not None)
                parts[0][0].append(candidates.index(own) + 1 if own in candidates else 0)
                parts[0][1].append(86 + 10 * (6 * n + len(candidates) - 1) + 2 * g + f)
                d = sum(max(v[k] for v in known) - min(v[k] for v in known) for k in range(2))
                i = sum(limit <= d for limit in (1, 2, 3, 5, 9, 17))
                j = sum(limit <= abs(missed[0]) for limit in (1, 3))
                tables = [2 + 28 * n + i, 9 + 28 * n + 3 * i + j]
                if own in candidates:
                    continue
            for k in range(2):
                parts[1 + k][0].append(missed[k])
                parts[1 + k][1].append(tables[k])
        stages += parts if number else parts[1:]
    return stages


@pytest.mark.parametrize("has_before", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (9, 13), (17, 10)])
def test_motion_is_coded_as_the_page_says(shape: tuple[int, int], has_before: bool) -> None:
    field = np.random.default_rng(1).integers(-20, 21, (2, *shape)).astype(np.int32).cumsum(2) // 4
    stages: list[Stage] = []

    def code(residuals: np.ndarray | None, tables: np.ndarray) -> np.ndarray:
        assert residuals is not None
        stages.append((residuals.tolist(), tables.tolist()))
        return residuals

    before = field[:, ::-1] if has_before else None
    code_field(field.astype(np.int32), shape, code, before)
    assert len(stages) == 20
    assert stages == stages_of_the_page(field, before)


def test_the_moved_state_is_as_the_page_says() -> None:
    draw = torch.Generator().manual_seed(0)
    state = torch.rand(1, 2, 5, 7, generator=draw)
    motion = torch.randint(-255, 256, (1, 2, 5, 7), generator=draw).float()
    moved = CodingLoop().moved(state, motion)
    for r, c in np.ndindex(5, 7):
        x, y = (int(v) for v in motion[0, :, r, c])
        row = min(max(r + (y + 16) // 32, 0), 4)
        column = min(max(c + (x + 16) // 32, 0), 6)
        assert torch.equal(moved[0, :, r, c], state[0, :, row, column])


def _source(frames: Tensor) -> tuple[Tensor, VideoInfo]:
    return frames, info_of(frames)
