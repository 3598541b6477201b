"""The frames of `diffsit` by type: `diffsit_frames.py --clips VAL --spynet FILE [--qualities 8 24 44]`.

For each clip and quality three decodings: "shown" from a file in a process of its own, "stem" the same
without diffusion, and "still" the frames of STEM if no MV frame moved; and "moved", what motion alone can
give: MV frames moved from the source's own backbones, by motion found there at the same price. By type of
frame LPIPS-Alex and the deviation of it over frames; flicker at the seams between clips, and where one triple
ends and the next begins within a clip; warping error within triples, whose frames are one backbone, moved,
and between them; and the bits of an MV frame over those of a backbone, where MV frames take what a file with
their motion has more than one without.
Writes results/frames-diffsit.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import RESULTS, environment
from torch import Tensor

import gencodec
from gencodec import api
from gencodec.codec import FrameType, Packet
from gencodec.container import Reader
from gencodec.evaluation.clips import digest_of
from gencodec.evaluation.decode_file import decode_elsewhere, read_frames
from gencodec.methods.diffsit.codec import DiffSit
from gencodec.methods.diffsit.pieces import Piece, StemCoder
from gencodec.methods.diffsit.stem import (
    Field,
    groups_of,
    moved,
    mv_field,
    mv_frames,
    steps_expected,
    unit_of,
)
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.temporal import Motion, flicker, motion_of, warping_error
from gencodec.nn.layers import pad_to_multiple
from gencodec.nn.motion import BLOCK
from gencodec.nn.spynet import SpyNet
from gencodec.training.data import VIDEO_SUFFIXES
from gencodec.video import open_video

Found = dict[str, Any]


def main() -> None:
    """Code, decode, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--spynet", type=Path, required=True, help="for the warping error")
    parser.add_argument("--qualities", type=int, nargs="+", default=[8, 24, 44])
    parser.add_argument("--frames", type=int, default=27)
    parser.add_argument("--out", type=Path, default=RESULTS / "frames-diffsit.json")
    options = parser.parse_args()
    paths = [p for p in sorted(options.clips.iterdir()) if p.suffix in VIDEO_SUFFIXES]
    rows = [measured(path, quality, options) for path in paths for quality in options.qualities]
    result = environment() | {
        "weights": f"{api.create('diffsit').weights_id:08x}",
        "clips": {path.stem: digest_of(path) for path in paths},
        "frames": options.frames,
        "means": [mean([row for row in rows if row["quality"] == q]) for q in options.qualities],
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["means"], indent=1))


def measured(path: Path, quality: int, options: argparse.Namespace) -> Found:
    """One clip at one quality."""
    with open_video(path, frames=(0, options.frames)) as video:
        frames, fps = list(video), video.info.fps
    height, width = frames[0].shape[1:]
    info = gencodec.VideoInfo(width, height, fps, len(frames))
    codec = api.create("diffsit")
    assert isinstance(codec, DiffSit)
    with tempfile.TemporaryDirectory() as folder:
        coded, raw = Path(folder) / "a.gcv", Path(folder) / "a.rgb"
        api.encode(frames, coded, codec=codec, quality=quality, fps=fps)
        decode_elsewhere("diffsit", coded, raw, info)
        shown = torch.cat(list(read_frames(raw, info, 8)))
        with coded.open("rb") as file:
            packets = [packet for gop in Reader(file).gops() for packet in gop.packets]
    is_mv = np.concatenate([mv_frames(p.num_frames, codec.options.chain) for p in packets])
    starts = np.array([packet.first_frame for packet in packets[1:]], int)
    pieces = pieces_of(codec.coder, packets, info)
    still, still_bytes = without_motion(codec.coder, frames, packets, pieces)
    source, variants = torch.stack(frames), {"shown": shown, "still": still}
    stem = torch.cat([piece.pictures for piece in pieces])
    variants["stem"] = as_bytes(stem[..., : info.height, : info.width])
    variants["moved"] = as_bytes(from_source(codec.coder, frames, packets)[..., : info.height, : info.width])
    motion = motion_of(SpyNet.load(options.spynet), (source[:-1], source[1:]))
    within = ~between_groups(is_mv)
    backbone = still_bytes / (~is_mv).sum()
    mv = (sum(len(packet.payload) for packet in packets) - still_bytes) / is_mv.sum()
    return {
        "clip": path.stem,
        "quality": quality,
        "mv_over_backbone_bits": float(mv / backbone),
        "warping_of_source": warping(motion, source, source, within),
    } | {
        name: by_type(source, pictures, is_mv, starts)
        | {"warping": warping(motion, source, pictures, within)}
        for name, pictures in variants.items()
    }


def pieces_of(coder: StemCoder, packets: list[Packet], info: gencodec.VideoInfo) -> list[Piece]:
    """What STEM has before the generator."""
    state, found = None, []
    for packet in packets:
        state = None if packet.type == FrameType.INTRA else state
        found.append(coder.decode(packet.payload, info, packet.num_frames, state, packet.quality))
        state = found[-1].state
    return found


def without_motion(
    coder: StemCoder, frames: list[Tensor], packets: list[Packet], pieces: list[Piece]
) -> tuple[Tensor, int]:
    """Pictures (T,3,H,W) where MV frames are told not to move, and their bytes; shares as in `pieces`."""
    still = StemCoder(coder.loop, coder.motion, coder.chain, no_motion)
    state, found, size = None, [], 0
    for packet, as_sent in zip(packets, pieces, strict=True):

        def told(_: Piece, shares: np.ndarray | None = as_sent.told) -> np.ndarray | None:
            return shares

        state = None if packet.type == FrameType.INTRA else state
        own = frames[packet.first_frame : packet.first_frame + packet.num_frames]
        payload, piece = still.encode(own, state, packet.quality, told)
        state = piece.state
        found.append(piece.pictures)
        size += len(payload)
    height, width = frames[0].shape[1:]
    return as_bytes(torch.cat(found)[..., :height, :width]), size


@torch.inference_mode()
def from_source(coder: StemCoder, frames: list[Tensor], packets: list[Packet]) -> Tensor:
    """Pictures (T,3,H,W), padded: backbones as they are, MV frames moved from them."""
    found, field = [pad_to_multiple(frame[None].float() / 255, BLOCK) for frame in frames], None
    for packet in packets:
        unit, field = unit_of(packet.quality), None if packet.type == FrameType.INTRA else field
        for group in groups_of(packet.num_frames, coder.chain):
            backbone = found[packet.first_frame + group.backbone]
            for offset in group.offsets:
                at = packet.first_frame + group.backbone + offset
                expected = steps_expected(offset, field, unit)
                steps = mv_field(found[at], backbone, packet.quality, coder.motion, expected)
                field = Field(unit * steps, offset)
                found[at] = moved(backbone, torch.from_numpy(field.motion).float()[None])
    return torch.cat(found)


def no_motion(x: Tensor, *_: Any) -> np.ndarray:
    """In place of `mv_field`."""
    return np.zeros((2, x.shape[2] // BLOCK, x.shape[3] // BLOCK), np.int32)


def as_bytes(pictures: Tensor) -> Tensor:
    """[0,1] to uint8."""
    return (255 * pictures.clamp(0, 1)).round().to(torch.uint8)


@torch.inference_mode()
def by_type(source: Tensor, pictures: Tensor, is_mv: np.ndarray, starts: np.ndarray) -> Found:
    """LPIPS-Alex by type of frame, its deviation over frames, and flicker by place."""
    net = Lpips.load()
    pairs = zip(source.split(8), pictures.split(8), strict=True)
    lpips = torch.cat([net(a, b) for a, b in pairs]).double().numpy()
    change = flicker((source[:-1], source[1:]), (pictures[:-1], pictures[1:])).numpy()
    at_seam = np.isin(np.arange(1, len(source)), starts)
    other = between_groups(is_mv) & ~at_seam
    return {
        "lpips": {"backbone": float(lpips[~is_mv].mean()), "mv": float(lpips[is_mv].mean())},
        "lpips_deviation": float(lpips.std()),
        "flicker": {"seams": float(change[at_seam].mean()), "groups": float(change[other].mean())},
    }


def warping(motion: Motion, source: Tensor, pictures: Tensor, within: np.ndarray) -> dict[str, float]:
    """Warping error of pairs of one backbone, and of others."""
    pairs = ((p[:-1], p[1:]) for p in (source, pictures))
    found = warping_error(motion, *pairs).decoded.double().numpy()
    return {"within": float(found[within].mean()), "between": float(found[~within].mean())}


def between_groups(is_mv: np.ndarray) -> np.ndarray:
    """Of pairs of consecutive frames those whose backbones differ, (T-1,): what moves from one is steady."""
    backbones = np.flatnonzero(~is_mv)
    nearest = np.abs(np.arange(len(is_mv))[:, None] - backbones).argmin(1)
    return np.diff(nearest) > 0


def mean(rows: list[Found]) -> Found:
    """Over clips, member by member."""
    first = rows[0]
    return {
        name: mean([row[name] for row in rows])
        if isinstance(value, dict)
        else float(np.mean([r[name] for r in rows]))
        for name, value in first.items()
        if name != "clip"
    }


if __name__ == "__main__":
    main()
