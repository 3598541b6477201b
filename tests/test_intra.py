"""The key-frame codec with its shipped weights: sizes, rates, refusals, the same symbols in any process."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.regenerate import clip

import gencodec
from gencodec import weights
from gencodec.codec import CorruptStream, FrameType, InexactDevice, Packet, VideoInfo
from gencodec.demo import SAMPLE
from gencodec.entropy.coder import SymbolDecoder, SymbolEncoder
from gencodec.entropy.shares import get_shares, put_shares
from gencodec.methods.intra.codec import Intra
from gencodec.methods.intra.cosine import dct_basis
from gencodec.methods.intra.key_frames import finished
from gencodec.metrics.lpips import Lpips
from gencodec.nn.shares import PLAIN, grid_of
from gencodec.rate import ConstantQuality
from gencodec.video import open_video

FRAME_TOLERANCE = 2  # grey levels of 255; measured, see docs/exact.md


@pytest.fixture(scope="module")
def codec():
    return gencodec.create("intra", device="cpu")


def squared_error(a, b):
    return (a.float() - b.float()).square().mean()


def info_of(frames):
    return VideoInfo(frames[0].shape[2], frames[0].shape[1], Fraction(25), len(frames))


@pytest.mark.parametrize("size", [(1, 1), (17, 9), (64, 48), (3, 130)])
def test_any_size_comes_back(codec, size):
    frames = list(clip(2, size[1], size[0]))
    recon, sent, received = [], [], []
    packets = list(
        codec.encode(
            frames, info_of(frames), ConstantQuality(40), on_recon=recon.append, on_symbols=sent.append
        )
    )
    decoded = list(codec.decode(packets, info_of(frames), on_symbols=received.append))
    assert [f.shape for f in decoded] == [f.shape for f in frames]
    assert all(torch.equal(a, b) for a, b in zip(decoded, recon, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(sent, received, strict=True))


def test_quality_buys_bytes_and_fidelity(codec):
    frames = list(clip(1))
    sizes, errors = [], []
    for quality in (0, 21, 42, 63):
        packets = list(codec.encode(frames, info_of(frames), ConstantQuality(quality)))
        (decoded,) = codec.decode(packets, info_of(frames))
        sizes.append(len(packets[0].payload))
        errors.append((decoded.float() - frames[0].float()).abs().mean().item())
    assert sizes == sorted(sizes)
    assert errors[-1] < errors[0]


def told(packet, codec, info):
    """The shares that a packet tells, None for none."""
    decoder = SymbolDecoder(packet.payload)
    codec.coder.decode(decoder, info, packet.quality)
    shares = get_shares(decoder, grid_of(info.height, info.width), is_key=True)
    decoder.finish()
    return shares


@pytest.mark.parametrize(("tune", "distance"), [("lpips", Lpips.load("cpu")), ("psnr", squared_error)])
def test_shares_of_the_repair_make_less_of_what_encoders_are_tuned_for(codec, tune, distance):
    """A few bytes behind the symbols, and a picture that is nearer to the source."""
    with open_video(SAMPLE, frames=(20, 21)) as video:
        frame = next(iter(video))
    info = info_of([frame])
    tuned = gencodec.create("intra", device="cpu", tune=tune)
    (packet,) = tuned.encode([frame], info, ConstantQuality(30))
    shares = told(packet, tuned, info)
    assert shares is not None
    assert (shares != PLAIN).any()
    (decoded,) = codec.decode([packet], info)
    encoder = SymbolEncoder()
    coded = codec.coder.encode(encoder, frame, 30, is_rounded=True)
    assert len(packet.payload) < len(encoder.finish()) + 2 + shares.size / 2
    assert distance(frame, decoded) < distance(frame, codec.coder.render(coded, info, 30))


def test_without_shares_all_of_the_repair_is_shown(codec):
    frame = clip(1)[0]
    info, encoder = info_of([frame]), SymbolEncoder()
    coded = codec.coder.encode(encoder, frame, 20, is_rounded=True)
    put_shares(encoder, None, is_key=True)
    (decoded,) = codec.decode([Packet(FrameType.INTRA, 20, 0, 1, encoder.finish())], info)
    linear, repaired = codec.coder.pictures(coded, 20)
    assert torch.equal(decoded, finished(repaired, info))
    assert not torch.equal(decoded, finished(linear, info))


def test_real_size_is_the_estimated_one(codec):
    frame = clip(1, 128, 192)[0]
    coder = codec.coder
    for quality in (10, 40, 63):
        encoder = SymbolEncoder()
        coder.encode(encoder, frame, quality, is_rounded=True)
        size = 8 * len(encoder.finish())
        q = torch.tensor([quality])
        with torch.inference_mode():
            y = coder.model.transforms.to_latents(frame[None].float() / 255, q)
            found = coder.model.latents(y, q)
        symbols, index = (part.int().numpy() for part in (found.symbols, found.scale_index))
        estimate = coder.latents.tables.bits(symbols, index).sum()
        assert abs(size - estimate) <= 0.01 * estimate + 64


@pytest.mark.parametrize(
    "packet", [Packet(FrameType.PREDICTED, 9, 0, 1, b""), Packet(FrameType.INTRA, 9, 0, 2, b"")]
)
def test_packets_that_no_encoder_writes_are_refused(codec, packet):
    with pytest.raises(CorruptStream):
        list(codec.decode([packet], VideoInfo(64, 64, Fraction(25), 1)))


def test_settings_are_refused(codec):
    with pytest.raises(CorruptStream, match="settings"):
        Intra.load(weights.load_set(["intra-tiny-9"], "tiny"), b"x", device="cpu")


def test_altered_exact_weights_are_refused():
    loaded = weights.load_set(["intra-tiny-9"], "tiny")
    tensors = {k: v.clone() for k, v in loaded.files["intra"].items()}
    tensors["latents.prior.nets.0.conv_out.bias"][-1] += 1000
    altered = type(loaded)(loaded.preset, {"intra": tensors}, loaded.metadata, loaded.id)
    with pytest.raises(InexactDevice):
        Intra.load(altered, b"", device="cpu")


def test_one_altered_table_entry_changes_the_symbols(codec):
    frames = list(clip(1))
    sent, received = [], []
    packets = list(codec.encode(frames, info_of(frames), ConstantQuality(50), on_symbols=sent.append))
    loaded = weights.load_set(["intra-tiny-9"], "tiny")
    tensors = {k: v.clone() for k, v in loaded.files["intra"].items()}
    cdf, used = tensors["latents.y_tables.cdf"], 20
    cdf[used, 1] += 1 if cdf[used, 1] + 1 < cdf[used, 2] else -1
    other = Intra.load(
        type(loaded)(loaded.preset, {"intra": tensors}, loaded.metadata, loaded.id), b"", device="cpu"
    )
    try:
        list(other.decode(packets, info_of(frames), on_symbols=received.append))
    except CorruptStream:
        return
    assert any(not np.array_equal(a, b) for a, b in zip(sent, received, strict=True))


@pytest.mark.parametrize(
    "environment",
    [
        {"OMP_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": "2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
    ],
    ids=["one-thread", "avx2", "sse41"],
)
def test_another_process_decodes_the_same_symbols(codec, tmp_path, environment):
    path = tmp_path / "a.gcv"
    sent = gencodec.encode(clip(2), path, codec=codec, quality=45, fps=Fraction(25)).latents_sha256
    command = [sys.executable, "-m", "gencodec", "decode", str(path), str(tmp_path / "out"), "--json"]
    run = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout)["latents_sha256"] == sent
    with open_video(tmp_path / "out") as video:
        pairs = list(zip(video, gencodec.decode(path), strict=True))
    assert max(int((a.int() - b.int()).abs().max()) for a, b in pairs) <= FRAME_TOLERANCE


def test_the_cosine_start_is_orthonormal():
    basis = dct_basis(192).flatten(1)
    assert torch.allclose(basis @ basis.T, torch.eye(192), atol=1e-5)


@pytest.mark.parametrize("target", [0.12, 0.4])
def test_a_target_in_bits_is_met(codec, target: float, tmp_path: Path) -> None:
    result = gencodec.encode(
        SAMPLE, tmp_path / "a.gcv", codec=codec, bpp=target, frames=(0, 6), size=(192, 112)
    )
    assert result.bpp == pytest.approx(target, rel=0.05)
    assert result.note == ""
    with open_video(SAMPLE) as video:
        bits_per_second = target * 192 * 112 * float(video.info.fps)
    again = gencodec.encode(
        SAMPLE, tmp_path / "b.gcv", codec=codec, bitrate=bits_per_second, frames=(0, 6), size=(192, 112)
    )
    assert again.bpp == pytest.approx(target, rel=0.05)


def test_a_target_in_lpips_is_met(codec, tmp_path: Path) -> None:
    from gencodec.metrics.lpips import Lpips

    net = Lpips.load()
    with open_video(SAMPLE, frames=(0, 3), size=(192, 112)) as video:
        frames = list(video)
    gencodec.encode(frames, tmp_path / "a.gcv", codec=codec, lpips=0.3)
    for source, decoded in zip(frames, gencodec.decode(tmp_path / "a.gcv"), strict=True):
        assert float(net(source, decoded)) == pytest.approx(0.3, abs=0.02)


def test_a_target_out_of_range_is_said_so(codec, tmp_path: Path) -> None:
    result = gencodec.encode(
        SAMPLE, tmp_path / "a.gcv", codec=codec, bpp=0.0001, frames=(0, 2), size=(96, 64)
    )
    assert result.quality == 0
    assert "smallest" in result.note
