"""`diffsit` on the wire, without trained weights: triples, pieces, closed loop, settings, records."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from functools import cache, partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gencodec.codec import CorruptStream, FrameType, Packet, Tune, UnsupportedStream, VideoInfo, Weights
from gencodec.demo import SAMPLE
from gencodec.entropy.coder import SymbolEncoder
from gencodec.entropy.motion import MotionCoder
from gencodec.methods.diffsit import pieces as pieces_module
from gencodec.methods.diffsit import share_search
from gencodec.methods.diffsit.codec import MV_TABLES, DiffSit
from gencodec.methods.diffsit.generator import PREFIX, ClipGenerator, GeneratorConfig
from gencodec.methods.diffsit.rendering import Renderer, rendered_length
from gencodec.methods.diffsit.settings import Options
from gencodec.methods.diffsit.share_search import ShareSearch
from gencodec.methods.diffsit.stem import (
    ALL_ANCHORS,
    Field,
    expected_motion,
    first_quality,
    groups_of,
    mv_frames,
    steps_expected,
)
from gencodec.methods.intra.key_frames import KeyFrameCoder
from gencodec.methods.intra.share_choice import Seen
from gencodec.methods.s2vc.model import level_of
from gencodec.metrics.lpips import Lpips
from gencodec.nn.motion import BLOCK
from gencodec.nn.state import export_float
from gencodec.rate import ConstantQuality, TargetBpp, TargetLpips
from gencodec.training.diffsit_cli import train_diffsit
from gencodec.training.diffsit_record import DiffsitBank, read_records, record, record_plain
from gencodec.training.diffsit_sent import count_tables, mv_tables, record_sent, stem_coder
from gencodec.training.s2vc_record import RecordBank
from gencodec.video import open_video
from gencodec.weights import load_named

INFO = VideoInfo(64, 48, Fraction(25))


class Shown(NamedTuple):
    picture: Tensor
    carry: int


class Darker:
    """In place of a generator: MV frames darker, and everything by how many clips were before."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int | None]] = []

    def __call__(
        self, clip: Tensor, is_mv: Tensor, quality: Tensor, before: int | None, only: Sequence[int]
    ) -> Shown:
        self.seen.append((clip.shape[1], before))
        assert is_mv.dtype == torch.bool
        assert quality.dtype == torch.int64
        number = 0 if before is None else before
        shown = clip * (1 - 0.2 * is_mv[:, None, None, None]) - 0.01 * number
        return Shown(shown[:, list(only)], number + 1)


@cache
def tables() -> dict[str, Tensor]:
    """Counted on a clip that is made here."""
    coder, x = stem_coder(), panning(9, 96, 96)
    return count_tables([record_sent(coder, x.float() / 255, q) for q in (20, 50)]).to_tensors(MV_TABLES)


def weights() -> Weights:
    (intra, intra_data), (s2vc, s2vc_data) = (load_named(n) for n in ("intra-tiny-9", "s2vc-tiny-6"))
    files = {"intra": intra, "s2vc": s2vc, "diffsit": tables()}
    return Weights("tiny", files, {"intra": intra_data, "s2vc": s2vc_data, "diffsit": {}}, 7)


def codec_of(generator: Any = None, **options: object) -> DiffSit:
    codec = DiffSit.load(weights(), DiffSit.pack_settings(diffusion=0, **options), device="cpu")
    codec.renderer = Renderer(generator, codec.options.clip_length, torch.device("cpu"))
    codec.set_tune("psnr")  # much faster
    return codec


@pytest.fixture(scope="module")
def plain() -> DiffSit:
    return codec_of(gop_length=21)


def panning(count: int, width: int, height: int, speed: int = 3) -> Tensor:
    """A smooth picture that a camera pans over, (count,3,H,W) uint8."""
    wide = smooth(width + speed * count, height)
    return torch.stack([wide[:, :, speed * t : speed * t + width] for t in range(count)])


def smooth(width: int, height: int) -> Tensor:
    """A picture, uint8 (3,H,W), whose neighbouring pixels are alike, as in films."""
    noise = torch.randint(
        0, 256, (1, 3, -(-height // 8), -(-width // 8)), generator=torch.Generator().manual_seed(0)
    )
    large = functional.interpolate(noise.float(), scale_factor=8, mode="bicubic")[0, :, :height, :width]
    return large.clamp(0, 255).to(torch.uint8)


def coded(
    codec: DiffSit, frames: Tensor, quality: int = 30, **hooks: Any
) -> tuple[list[Packet], list[Tensor]]:
    recon: list[Tensor] = []
    rate = ConstantQuality(quality)
    packets = list(codec.encode(iter(frames), info_of(frames), rate, on_recon=recon.append, **hooks))
    return packets, recon


def info_of(frames: Tensor) -> VideoInfo:
    return VideoInfo(frames.shape[3], frames.shape[2], Fraction(25))


def are_equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_frames_tuned_for_lpips_look_better_and_those_moved_from_them_too() -> None:
    """At these rates a tenth more rate is worth about a twentieth of the distance."""
    with open_video(SAMPLE, frames=(0, 6)) as video:
        frames = torch.stack([frame[:, 32:128, 64:192] for frame in video])
    net, found = Lpips.load(), {}
    for tune in get_args(Tune):
        codec = codec_of()
        codec.set_tune(tune)
        packets, recon = coded(codec, frames, 24)
        distances = net(torch.stack(recon), frames).numpy()
        found[tune] = sum(len(p.payload) for p in packets), distances[[1, 4]].mean(), distances[[0, 2]].mean()
    size, *chosen = found["lpips"]
    rounded_size, *rounded = found["psnr"]
    gains = np.log(np.array(rounded) / chosen) - 0.5 * np.log(size / rounded_size)
    assert (gains > 0.05).all()


# ---- which frames are what -------------------------------------------------------------------------------


def test_triples() -> None:
    assert mv_frames(9, 1) == [True, False, True] * 3
    assert mv_frames(4, 1) == [True, False, True, False]
    assert mv_frames(5, 1) == [True, False, True, True, False]
    assert not any(mv_frames(9, 0))
    assert mv_frames(9, 2) == [True, True, False, True, True, True, True, False, True]
    assert groups_of(5, 2) == [(2, (-1, 1, -2, 2))]


@pytest.mark.parametrize(("count", "chain"), [*product((1, 2, 3, 9, 21, 33), range(5))])
def test_every_frame_is_coded_once(count: int, chain: int) -> None:
    order = [g.backbone + o for g in groups_of(count, chain) for o in (0, *g.offsets)]
    assert sorted(order) == list(range(count))


def test_even_motion_is_expected() -> None:
    """A camera that pans: every field follows from the one before."""
    velocity = np.full((2, 2, 3), 6, np.int32)
    for offset, last in ((1, -1), (-1, 1), (-2, 1), (3, -2), (2, 2), (-1, -4)):
        expected = expected_motion(offset, Field(-last * velocity, last))
        assert expected is not None
        assert expected.dtype == np.int32
        assert np.array_equal(expected, -offset * velocity)
    assert expected_motion(-1, None) is None


@pytest.mark.parametrize(("count", "length"), [(1, 9), (9, 9), (10, 13), (13, 13), (21, 21), (15, 17)])
def test_clips_are_as_long_as_the_autoencoder_wants(count: int, length: int) -> None:
    assert rendered_length(count, 33) == length
    assert rendered_length(count, 9) == 9


# ---- closed loop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 9, 10, 22, 100])
def test_the_loop_is_closed(plain: DiffSit, count: int) -> None:
    frames = panning(22, 32, 32).repeat(5, 1, 1, 1)[:count]
    symbols: list[list[np.ndarray]] = [[], []]
    packets, recon = coded(plain, frames, on_symbols=symbols[0].append)
    assert sum(p.num_frames for p in packets) == count
    assert [p.first_frame for p in packets] == list(np.cumsum([0] + [p.num_frames for p in packets])[:-1])
    shown = list(plain.decode(packets, info_of(frames), on_symbols=symbols[1].append))
    assert are_equal(recon, shown)
    assert all(np.array_equal(a, b) for a, b in zip(*symbols, strict=True))
    assert {array.dtype for array in symbols[0]} == {np.dtype(np.int32)}


@pytest.mark.parametrize(
    "options",
    [
        {"pattern": "dense"},
        *({"chain": chain} for chain in (2, 3, 4)),
        {"clip_length": 21, "gop_length": 5},
    ],
)
@pytest.mark.parametrize("size", [(37, 23), (1, 1)])
def test_patterns_and_odd_sizes(options: dict[str, Any], size: tuple[int, int]) -> None:
    codec, frames = codec_of(**options), panning(11, *size)
    packets, recon = coded(codec, frames)
    assert are_equal(recon, list(codec.decode(packets, info_of(frames))))
    assert [tuple(f.shape) for f in recon] == [(3, size[1], size[0])] * 11


def test_groups_begin_anew(plain: DiffSit) -> None:
    """At their length; decoding may start at each, and nothing before matters."""
    frames = panning(40, 48, 32)
    packets, recon = coded(plain, frames)
    assert [(p.type, p.num_frames) for p in packets] == [(0, 9), (1, 9), (1, 3), (0, 9), (1, 9), (1, 1)]
    assert are_equal(recon[21:], list(plain.decode(packets[3:], info_of(frames))))


def test_a_cut_begins_a_group(plain: DiffSit) -> None:
    dark = smooth(64, 48) // 4
    frames = torch.stack([dark] * 7 + [(255 - dark).flip(2)] * 5)
    packets, recon = coded(plain, frames)
    assert [(p.type, p.first_frame, p.num_frames) for p in packets] == [(0, 0, 7), (0, 7, 5)]
    assert are_equal(recon[7:], list(plain.decode(packets[1:], INFO)))


def test_rate_controls(plain: DiffSit) -> None:
    frames = panning(12, 32, 32)
    for rate in (TargetBpp(0.2), TargetLpips(0.3)):
        recon: list[Tensor] = []
        packets = list(plain.encode(iter(frames), info_of(frames), rate, on_recon=recon.append))
        assert are_equal(recon, list(plain.decode(packets, info_of(frames))))
        assert packets[0].quality == first_quality(packets[1].quality)  # weighed together


def test_the_first_piece_of_a_group_is_better(plain: DiffSit) -> None:
    dark = smooth(64, 48) // 4
    frames = torch.stack([dark] * 20 + [(255 - dark).flip(2)] * 10)  # with a cut
    qualities = [p.quality for p in coded(plain, frames, 30)[0]]
    first = first_quality(30)
    assert qualities == [first, 30, 30, first, 30]
    assert first > 30
    assert [first_quality(q) for q in (0, 63)] == [0, 63]  # the least and the most are what they are
    leads = [first_quality(q + 1) - first_quality(q) for q in range(63)]
    assert min(leads) >= 0


def test_quality_moves_the_size(plain: DiffSit) -> None:
    frames = panning(9, 128, 64)
    sizes = [len(coded(plain, frames, q)[0][0].payload) for q in (0, 20, 40, 63)]
    assert sizes == sorted(set(sizes))


# ---- the generator's side --------------------------------------------------------------------------------


def test_pieces_are_rendered_in_a_row() -> None:
    """Whole clips, the last one filled up; what is carried ends with the group."""
    generator = Darker()
    codec, frames = codec_of(generator, gop_length=21), panning(25, 48, 32)
    packets = list(codec.encode(iter(frames), info_of(frames), ConstantQuality(30)))
    assert not generator.seen  # nobody looked
    shown = list(codec.decode(packets, info_of(frames)))
    assert generator.seen == [(9, None), (9, 1), (9, 2), (9, None)]
    assert len(shown) == 25
    assert are_equal(coded(codec, frames)[1], shown)
    unrendered = list(codec_of(gop_length=21).decode(packets, info_of(frames)))
    is_darker = [
        float(a.float().mean() / b.float().mean()) < 0.9 for a, b in zip(shown, unrendered, strict=True)
    ]
    assert is_darker == mv_frames(21, 1) + mv_frames(4, 1)


SMALL = GeneratorConfig(
    width=16, wide=16, latents=8, detail=8, detail_blocks=1, channels=32, blocks=2, heads=2, hidden=48
)


def test_a_generator_of_a_weights_file() -> None:
    """Loaded with its configuration; encoder and decoder show the same, and not what STEM has."""
    torch.manual_seed(0)
    net = ClipGenerator(SMALL)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    made = weights()
    own = {f"{PREFIX}{n}": t for n, t in export_float(net, skip=()).items()}
    files = {**made.files, "diffsit": {**made.files["diffsit"], **own}}
    metadata = {**made.metadata, "diffsit": {"generator": json.dumps(asdict(SMALL))}}
    whole = replace(made, files=files, metadata=metadata)
    codec = DiffSit.load(whole, DiffSit.pack_settings(gop_length=12), device="cpu")
    codec.set_tune("psnr")
    frames = panning(14, 48, 32)
    packets, recon = coded(codec, frames)
    assert are_equal(recon, list(codec.decode(packets, info_of(frames))))
    assert are_equal(recon[12:], list(codec.decode(packets[2:], info_of(frames))))
    codec.search = None
    packets, recon = coded(codec, frames)
    assert [p.payload for p in packets] == [p.payload for p in coded(codec_of(gop_length=12), frames)[0]]
    assert not are_equal(recon, list(codec_of().decode(packets, info_of(frames))))


def test_symbols_do_not_depend_on_what_is_shown() -> None:
    frames = panning(12, 48, 32)
    payloads = [[p.payload for p in coded(codec_of(g), frames)[0]] for g in (None, Darker())]
    assert payloads[0] == payloads[1]


# ---- motion ----------------------------------------------------------------------------------------------


def test_mv_frames_are_cheap_and_moved(plain: DiffSit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their motion takes under a quarter of a backbone's bits, and more than nothing; without it they err."""
    frames = panning(9, 192, 128, speed=4)
    packet = coded(plain, frames, 30)[0][0]
    spent: list[float] = []
    whole = MotionCoder.encode

    def counted(
        self: MotionCoder, encoder: SymbolEncoder, field: np.ndarray, before: np.ndarray | None = None
    ) -> list[np.ndarray]:
        if self is plain.coder.motion:
            spent.append(self.bits(field, before))
        return whole(self, encoder, field, before)

    monkeypatch.setattr(MotionCoder, "encode", counted)
    plain.coder.encode(list(frames), None, 30)
    backbone_bits = (8 * len(packet.payload) - sum(spent)) / 3
    assert len(spent) == 6
    assert 0 < sum(spent) / 6 < backbone_bits / 4
    good = mv_error(plain, packet, frames)
    monkeypatch.setattr(pieces_module, "moved", lambda backbone, motion: backbone)
    assert mv_error(plain, packet, frames) > 1.5 * good


def mv_error(codec: DiffSit, packet: Packet, frames: Tensor) -> float:
    shown = torch.stack(list(codec.decode([packet], info_of(frames))))
    away = (shown.float() - frames.float()).abs().mean((1, 2, 3))
    return float(away[mv_frames(len(frames), 1)].mean())


# ---- damage ----------------------------------------------------------------------------------------------


def test_damage(plain: DiffSit) -> None:
    frames = panning(6, 64, 48)
    packet = coded(plain, frames)[0][0]
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(40):  # a file's checksum sees them all; without it nothing worse than other frames comes
        broken = bytearray(packet.payload)
        broken[generator.integers(len(broken))] ^= 1 << int(generator.integers(8))
        try:
            list(plain.decode([replace(packet, payload=bytes(broken).rstrip(b"\0"))], INFO))
        except CorruptStream:
            refused += 1
    assert refused > 30
    for count in (1, 3):  # of 5 the last field is left, which may take no bits at all
        with pytest.raises(CorruptStream):
            list(plain.decode([replace(packet, num_frames=count)], INFO))


def test_packets_that_no_encoder_writes(plain: DiffSit) -> None:
    (packet,), _ = coded(plain, panning(3, 64, 48))
    for wrong, message in (
        (replace(packet, type=FrameType.PREDICTED), "before any key frame"),
        (replace(packet, num_frames=10), "1..9 frames"),
        (replace(packet, num_frames=0), "1..9 frames"),
    ):
        with pytest.raises(CorruptStream, match=re.escape(message)):
            next(plain.decode([wrong], INFO))


# ---- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"clip_length": 10},
        {"clip_length": True},
        {"gop_length": 0},
        {"gop_length": 4096},
        {"gop_length": 1.5},
        {"chain": 0},
        {"chain": 5},
        {"chain": 1, "pattern": "dense"},
        {"pattern": "pairs"},
        {"diffusion": 2},
        {"noise": 1},
    ],
)
def test_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        DiffSit.pack_settings(**options)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (b"", CorruptStream),
        (bytes(5), CorruptStream),
        (bytes(6), UnsupportedStream),
        (b"\x09\x3f\0\5\1", CorruptStream),
        (b"\x09\x3f\0\1\2", CorruptStream),
        (b"\x09\0\x10\1\1", CorruptStream),
        (b"\x0c\x3f\0\1\1", CorruptStream),
    ],
)
def test_settings_that_no_encoder_writes(settings: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        DiffSit.load(Weights("tiny", {}, {}, 7), settings, device="cpu")


def test_settings_come_back() -> None:
    every: list[dict[str, object]] = [
        {},
        {"pattern": "dense"},
        {"chain": 4, "clip_length": 33, "gop_length": 4095, "diffusion": 0},
    ]
    for options in every:
        made = Options.of(**options)
        assert Options.unpack(made.pack()) == made
    assert DiffSit.pack_settings() == b"\x09\x3f\0\1\1"


# ---- the same everywhere ---------------------------------------------------------------------------------


def test_symbols_are_the_same_however_it_is_computed(plain: DiffSit) -> None:
    """Threads and oneDNN: symbols equal, pixels next to so."""
    frames = panning(9, 64, 48)
    packets, _ = coded(plain, frames, 40)
    symbols, shown, threads = set(), [], torch.get_num_threads()
    try:
        for count, fast in product((1, 2), (True, False)):
            seen: list[np.ndarray] = []
            torch.set_num_threads(count)
            with torch.backends.mkldnn.flags(enabled=fast):
                shown.append(torch.stack(list(plain.decode(packets, INFO, on_symbols=seen.append))))
            symbols.add(b"".join(array.tobytes() for array in seen))
    finally:
        torch.set_num_threads(threads)
    assert len(symbols) == 1
    assert max(int((s.int() - shown[0].int()).abs().max()) for s in shown) <= 1


def test_the_same_bytes_again(plain: DiffSit) -> None:
    frames = panning(12, 48, 32)
    assert coded(plain, frames)[0] == coded(plain, frames)[0]


# ---- records ---------------------------------------------------------------------------------------------


class Clips:
    """A bank of one clip."""

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        return panning(21, 64, 48)[None].expand(size, -1, -1, -1, -1).float() / 255


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    record(partial(record_sent, stem_coder()), Clips(), folder, "cpu", first=0, count=2)
    return folder


def test_records_are_what_a_decoder_has(records: Path) -> None:
    coder = stem_coder()
    for one in read_records(records):
        state, pictures = None, []
        for first in range(0, 21, 9):
            _, piece = coder.encode(list(one.x[first : first + 9]), state, int(one.quality))
            pictures.append(piece.pictures)
            state = piece.state
        away = torch.cat(pictures) * 255 - one.picture.float()
        assert away.abs().max() < 0.51  # in pieces or at once, it is the same
        assert one.is_mv.tolist() == mv_frames(21, 1)
        assert one.motion.shape == (21, 2, 48 // BLOCK, 64 // BLOCK)


def test_records_without_the_entropy_coder_are_next_to_the_same() -> None:
    """But for symbols that are chosen, and motion that is weighed by its real bits."""
    x, coder = panning(9, 96, 64).float() / 255, stem_coder()
    coder.loop.key.tune = "psnr"
    sent = record_sent(coder, x, 40)
    plain = record_plain(coder.loop.loop, coder.loop.key.model, x, 40)
    assert torch.equal(sent.is_mv, plain.is_mv)
    assert torch.equal(sent.x, plain.x)
    assert (sent.picture[1].int() - plain.picture[1].int()).abs().max() <= 1  # the key frame
    a, b = ((r.picture.float() - r.x.float()).square().mean((1, 2, 3)) for r in (sent, plain))
    assert torch.allclose(a[1::3], b[1::3], rtol=0.25)
    assert float(b.mean()) == pytest.approx(float(a.mean()), rel=0.25)
    assert plain.motion[::3].any()


def test_backbones_are_records_of_the_loop(records: Path, tmp_path: Path) -> None:
    """Their symbols make the pictures again, each of the one before."""
    train_diffsit(["--stage", "backbones", "--records", str(records), "--out", str(tmp_path)])
    model = stem_coder().loop.loop
    for sent, one in zip(read_records(records), RecordBank(tmp_path), strict=True):
        assert torch.equal(one.picture, sent.picture[1::3])
        assert one.cycle.tolist() == [ALL_ANCHORS]
        before = one.picture[:-1].float() / 255
        level = torch.tensor([level_of(int(one.quality), age, ALL_ANCHORS) for age in range(1, 7)])
        prediction = model.predict(before, one.motion.float())
        shown, scaled = model.to_picture(one.symbols.float(), prediction, level)
        away = (255 * shown - one.picture[1:].float()).abs()
        assert away.max() < 6  # both pictures were rounded, and symbols are found in them
        assert away.mean() < 0.4
        assert torch.equal(one.scaled[1:], scaled.half())
        assert one.symbols.any()
        key = KeyFrameCoder(*load_named("intra-tiny-9"), "cpu").model.transforms
        decoded = key.to_linear_picture(one.key_y_hat, one.clock[0])[0].clamp(0, 1)
        clamped = (one.picture[:1] == 0) | (one.picture[:1] == 255)
        free = ~functional.max_pool2d(clamped.float(), 16).amax(1, keepdim=True).bool()  # blocks without
        free = functional.interpolate(free.float(), scale_factor=16).bool().expand_as(decoded)
        assert free.any()
        assert (255 * decoded - one.picture[:1].float())[free].abs().max() < 1.5


def test_windows_of_records(records: Path) -> None:
    bank = DiffsitBank(records, frames=9, crop=32)
    draws = bank.batch(30, np.random.default_rng(0))
    window = bank.cut(draws)
    assert window.x.shape == window.picture.shape == (30, 9, 3, 32, 32)
    assert window.quality.shape == window.first.shape == (30,)
    assert set(window.first.tolist()) == {0, 3, 6, 9, 12}
    assert window.is_mv.tolist() == [True, False, True] * 3
    assert 0 < float((window.x - window.picture).abs().mean()) < 0.1
    _, first, row, column = draws[0].tolist()
    source = panning(21, 64, 48)[
        first : first + 9, :, 16 * row : 16 * row + 32, 16 * column : 16 * column + 32
    ]
    assert torch.equal((255 * window.x[0]).round().to(torch.uint8), source)
    for wrong in ({"frames": 24}, {"crop": 64}, {"frames": 8}):
        with pytest.raises(ValueError, match="frames"):
            DiffsitBank(records, **wrong)


def test_counted_tables_code_what_they_saw_cheaper(records: Path) -> None:
    own, other = MotionCoder.load(mv_tables(records), MV_TABLES), MotionCoder(count_tables([]))
    motion = next(read_records(records)).motion.int().numpy()
    spent = [sum(c.bits(motion[n + 1], -motion[n - 1]) for n in range(1, 21, 3)) for c in (own, other)]
    assert spent[0] < 0.8 * spent[1]


# ---- the page --------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]


def test_the_methods_page_names_what_exists() -> None:
    """Rows name code as `path.py` or `path.py: Name.attribute, name`, below gencodec/."""
    text = (ROOT / "docs" / "methods" / "diffsit.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z0-9_/]+\.py)(?:: ([\w., ]+))?`", text)
    assert len(named) > 12
    for path, names in named:
        module = import_module("gencodec." + path.removesuffix(".py").replace("/", "."))
        for name in filter(None, names.split(", ")):
            found: Any = module
            for part in name.split("."):
                found = getattr(found, part)


def motion_of_the_page(offset: int, last: int, motion: int, unit: int) -> int:
    """Section "Payload" of the page, word for word."""
    return max(-255, min(255, (2 * offset * last * motion + last**2) // (2 * last**2) // unit))


def test_expected_motion_is_that_of_the_page() -> None:
    motion = np.arange(-510, 511, dtype=np.int32).reshape(1, 1, -1)
    for offset, last, unit in product((-4, -1, 1, 3), (-3, -1, 2), (1, 2)):
        found = steps_expected(offset, Field(motion, last), unit)
        assert found is not None
        assert found.ravel().tolist() == [motion_of_the_page(offset, last, int(m), unit) for m in motion.flat]


# ---- shares of the repair ----------------------------------------------------------------------------------


class Brighter:
    """In place of a generator: what it adds is what the source has more, or three times that."""

    def __init__(self, source: Tensor, too_much: float) -> None:
        self.source, self.too_much = source.float() / 255, too_much

    def __call__(
        self, clip: Tensor, is_mv: Tensor, quality: Tensor, before: int | None, only: Sequence[int]
    ) -> Shown:
        first = 0 if before is None else before
        x = self.source[[min(first + n, len(self.source) - 1) for n in range(clip.shape[1])]]
        shown = clip + self.too_much * (x - clip)
        return Shown(shown[:, list(only)], first + clip.shape[1])


@pytest.mark.parametrize("tune", ["psnr", "lpips"])
def test_an_encoder_shows_as_much_of_the_repair_as_is_right(tune: Tune) -> None:
    """A generator that adds twice of what is missing is shown by halves, one that adds half of it twice."""
    frames = panning(9, 64, 64)
    missed = {}
    for too_much in (1.0, 2.0, 0.5):
        codec = codec_of(Brighter(frames, too_much))
        codec.search = ShareSearch(codec.renderer, codec.coder.loop.key)
        codec.set_tune(tune)
        packets, recon = coded(codec, frames)
        assert are_equal(recon, list(codec.decode(packets, info_of(frames))))
        missed[too_much] = float((torch.stack(recon).float() - frames).square().mean())
        codec.search = None
        plain = torch.stack(coded(codec, frames)[1]).float()
        missed[-too_much] = float((plain - frames).square().mean())
    assert missed[1.0] <= missed[-1.0] + 0.5
    assert missed[2.0] < 0.2 * missed[-2.0]
    assert missed[0.5] < 0.8 * missed[-0.5]  # of the second half, luma alone


def test_shares_come_with_the_first_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []

    def another(seen: list[Seen], quality: int, *_: object) -> np.ndarray:
        chosen.append(quality)
        return np.full((2, 2), len(chosen) % 6, np.int32)

    monkeypatch.setattr(share_search, "choose_shares", another)
    codec, frames = codec_of(Darker(), gop_length=27), panning(36, 48, 48)
    codec.search = ShareSearch(codec.renderer, codec.coder.loop.key)
    packets, recon = coded(codec, frames)
    assert chosen == [35, 30, 35], "the first piece leads in quality"
    assert are_equal(recon, list(codec.decode(packets, info_of(frames))))
    state, told = None, []
    for packet in packets:
        state = None if packet.type is FrameType.INTRA else state
        piece = codec.coder.decode(packet.payload, info_of(frames), packet.num_frames, state, packet.quality)
        told.append(piece.told is not None)
        state = piece.state
    assert told == [True, True, False, True]
