"""All metrics of one comparison: chosen by name, loaded once, measured on decoded frames as they come in.

    Suite.load(names, paths) ─► suite.clip() ─► add(source, decoded) for each batch ─► scores()
    clip.features       what FID, KID and FVD of the whole data set are computed from

A metric whose weights are absent is left out, with a line in `suite.missing`: never a wrong number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gencodec.codec import WeightsMissing
from gencodec.metrics.dists import Dists
from gencodec.metrics.fid import PatchFeatures, load_inception
from gencodec.metrics.frames import check_frames
from gencodec.metrics.fvd import ClipFeatures
from gencodec.metrics.lpips import Lpips
from gencodec.metrics.ms_ssim import ms_ssim
from gencodec.metrics.psnr import psnr
from gencodec.metrics.recall import Recall
from gencodec.metrics.temporal import FlowNet, flicker, motion_of, warping_error
from gencodec.nn.i3d import I3d
from gencodec.nn.raft import Raft
from gencodec.nn.spynet import SpyNet
from gencodec.nn.winograd import use_winograd

Features = PatchFeatures | ClipFeatures
DeepNet = TypeVar("DeepNet", Lpips, Dists)
Recalled = Callable[[Callable[[], Any]], Any]  # what its argument gives, or gave for these source frames
PSNR_MAX = 100.0  # decibels that an equal frame counts as, so that means stay finite
EVERY = 5  # frames from one to the next that the slow metrics look at


@dataclass(frozen=True, slots=True)
class Metric:
    """What a metric is called and what is good. `ranks`: whether less or more of it is better by itself."""

    label: str
    lower_is_better: bool
    needs: str = ""  # the weights that the user must have: "vgg", "inception", "spynet", "raft", "i3d"
    every: int = 1
    digits: int = 4
    ranks: bool = True


METRICS: Mapping[str, Metric] = {
    "psnr": Metric("PSNR, dB", False, digits=2),
    "ms_ssim": Metric("MS-SSIM", False),
    "lpips_alex": Metric("LPIPS-Alex", True),
    "lpips_vgg": Metric("LPIPS-VGG", True, "vgg", EVERY),
    "dists": Metric("DISTS", True, "vgg", EVERY),
    "warping_error": Metric("warping error", True, "spynet", EVERY, 3, ranks=False),
    "warping_error_raft": Metric("warping error (RAFT)", True, "raft", EVERY, 3, ranks=False),
    "flicker": Metric("flicker, levels", True, digits=2),
    "fid": Metric("FID", True, "inception", digits=2),
    "kid": Metric("KID x 1000", True, "inception", digits=2),
    "fvd": Metric("FVD", True, "i3d", digits=1),
    "i3d_distance": Metric("I3D distance", True, "i3d", digits=2),
}
DEFAULT_METRICS = tuple(METRICS)
FEATURES_OF = {"fid": "inception", "kid": "inception", "fvd": "i3d", "i3d_distance": "i3d"}
PAIRWISE = ("warping_error", "warping_error_raft", "flicker")  # of consecutive frames


@dataclass
class Suite:
    """Loaded metrics. `missing` maps the name of each that was left out to why."""

    names: tuple[str, ...]
    networks: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    recall: Recall = field(default_factory=Recall)

    @classmethod
    def load(
        cls,
        names: Sequence[str] = DEFAULT_METRICS,
        paths: Mapping[str, str | Path] | None = None,
        device: torch.device | str = "cpu",
    ) -> Suite:
        """Load what `names` need; `paths` gives weights by `Metric.needs`.

        Raises ValueError for an unknown name.
        """
        if unknown := sorted(set(names) - set(METRICS)):
            raise ValueError(f"no metric {unknown[0]!r}; there are {', '.join(METRICS)}")
        suite = cls((), device=torch.device(device))
        loaders = _loaders(dict(paths or {}), suite.device)
        kept = []
        for name in dict.fromkeys(names):
            try:
                if name in loaders and name not in suite.networks:
                    suite.networks[name] = loaders[name]()
                kept.append(name)
            except (WeightsMissing, ValueError) as error:
                suite.missing[name] = str(error)
        if {"lpips_vgg", "dists"} <= suite.networks.keys():  # of one file
            suite.networks["dists"].backbone.share(suite.networks["lpips_vgg"].backbone)
        suite.names = tuple(kept)
        return suite

    def clip(self, source: str = "") -> ClipScores:
        """An empty collection for one decoded clip.

        Collections of equal `source`, one after another, must be given the same source frames in the same
        batches: what the networks make of them is computed once.
        """
        self.recall.begin(source)
        makers = {"inception": PatchFeatures, "i3d": ClipFeatures}
        networks = {FEATURES_OF[name]: self.networks[name] for name in self.names if name in FEATURES_OF}
        pairs = {kind: (makers[kind](net), makers[kind](net)) for kind, net in networks.items()}
        return ClipScores(self, pairs)


class ClipScores:
    """Scores of one decoded clip, from frames in order."""

    def __init__(self, suite: Suite, features: Mapping[str, tuple[Features, Features]]) -> None:
        self.suite, self.features = suite, features
        self.per_frame: dict[str, dict[int, float]] = {
            name: {} for name in suite.names if name not in FEATURES_OF
        }
        self.problems: dict[str, str] = {}
        self.count = 0
        self._last: tuple[Tensor, Tensor] | None = None

    def add(self, source: Tensor, decoded: Tensor) -> None:
        """The next frames, uint8 (N,3,H,W) each. Raises ValueError where the shapes differ."""
        if source.shape != decoded.shape:
            raise ValueError(f"shapes differ: {tuple(source.shape)} and {tuple(decoded.shape)}")
        for name in [name for name in self.suite.names if name not in FEATURES_OF]:
            pairwise = name in PAIRWISE
            taken = [
                i
                for i in range(len(source))
                if (self.count + i) % METRICS[name].every == 0 and (i or self._last or not pairwise)
            ]
            if taken and name not in self.problems:
                self._measure(name, self._inputs(source, decoded, taken, pairwise), taken)
        for pair in self.features.values():
            for features, frames in zip(pair, (source, decoded), strict=True):
                features.add(frames.to(self.suite.device))
        self._last = source[-1:], decoded[-1:]
        self.count += len(source)

    def means(self) -> dict[str, float]:
        """The mean over the frames that were measured; without those that failed or had none."""
        return {
            name: sum(values.values()) / len(values)
            for name, values in self.per_frame.items()
            if values and name not in self.problems
        }

    def _measure(self, name: str, inputs: tuple[Any, Any], taken: list[int]) -> None:
        try:
            recall = partial(self.suite.recall, (name, self.count, *taken))
            with torch.no_grad():
                found = _FUNCTIONS[name](self.suite.networks.get(name), *inputs, recall)
        except ValueError as error:  # too small for it, for one
            self.problems[name] = str(error)
            return
        for column, values in ({name: found} if isinstance(found, Tensor) else found).items():
            for i, value in zip(taken, values.double().cpu().tolist(), strict=True):
                if math.isnan(value):
                    self.problems[name] = f"{name} of frame {self.count + i} is not a number"
                    return
                self.per_frame.setdefault(column, {})[self.count + i] = value

    def _inputs(self, source: Tensor, decoded: Tensor, taken: list[int], pairwise: bool) -> tuple[Any, Any]:
        frames = [t[taken].to(self.suite.device) for t in (source, decoded)]
        if not pairwise:
            return frames[0], frames[1]
        both = []
        for k, now in enumerate((source, decoded)):
            shifted = now if self._last is None else torch.cat([self._last[k], now])
            offset = 1 if self._last is not None else 0
            before = shifted[[i + offset - 1 for i in taken]].to(self.suite.device)
            both.append((before, frames[k]))
        return both[0], both[1]


def frames_at_once(height: int, width: int) -> int:
    """How many frames the metrics take together, so that memory stays bounded at any size: 8 at 448x256."""
    return max(1, min(8, 8 * 448 * 256 // (height * width)))


def _loaders(paths: dict[str, str | Path], device: torch.device) -> dict[str, Callable[[], Any]]:
    shared: dict[str, Any] = {}

    def once(key: str, load: Callable[[], Any]) -> Callable[[], Any]:
        def get() -> Any:
            if key not in shared:
                shared[key] = load()
            return shared[key]

        return get

    def needed(kind: str, what: str, suffix: str = ".safetensors") -> str | Path:
        if kind not in paths:
            raise WeightsMissing(f"{what}: give its weights with --{kind} FILE{suffix}")
        return paths[kind]

    raft = partial(needed, "raft", "the warping error by RAFT needs raft_large", ".pth")
    inception = once("inception", lambda: load_inception(paths.get("inception"), device))
    i3d = once("i3d", lambda: I3d.load(needed("i3d", "FVD needs I3D"), device))
    return {
        "lpips_alex": lambda: _quick(Lpips.load(device)),
        "lpips_vgg": lambda: _quick(Lpips.from_file(needed("vgg", "LPIPS-VGG needs VGG16"), device)),
        "dists": lambda: _quick(Dists.load(needed("vgg", "DISTS needs VGG16"), device)),
        "warping_error": lambda: SpyNet.load(needed("spynet", "the warping error needs SPyNet"), device),
        "warping_error_raft": lambda: Raft.load(raft(), device),
        "fid": inception,
        "kid": inception,
        "fvd": i3d,
        "i3d_distance": i3d,
    }


def _quick(net: DeepNet) -> DeepNet:
    """`net` with faster convolutions, equal but for rounding, where they are faster."""
    if next(net.buffers()).device.type == "cpu":
        use_winograd(net.backbone.convs)
    return net


def _deep(net: Lpips | Dists, source: Tensor, decoded: Tensor, recall: Recalled) -> Tensor:
    check_frames(source, decoded)
    return net.between(recall(lambda: net.maps(source.float() / 255)), net.maps(decoded.float() / 255))


def _warping_errors(
    name: str, net: FlowNet, source: Any, decoded: Any, recall: Recalled
) -> dict[str, Tensor]:
    """The decoded clip's, and the source's own beside it."""
    found = warping_error(recall(lambda: motion_of(net, source)), source, decoded)
    return {name: found.decoded, f"{name}_source": found.source}


_FUNCTIONS: Mapping[str, Callable[[Any, Any, Any, Recalled], Tensor | dict[str, Tensor]]] = {
    "psnr": lambda _, a, b, __: psnr(a, b).clamp_max(PSNR_MAX),
    "ms_ssim": lambda _, a, b, __: ms_ssim(a, b),
    "lpips_alex": _deep,
    "lpips_vgg": _deep,
    "dists": _deep,
    "warping_error": partial(_warping_errors, "warping_error"),
    "warping_error_raft": partial(_warping_errors, "warping_error_raft"),
    "flicker": lambda _, a, b, __: flicker(a, b),
}
