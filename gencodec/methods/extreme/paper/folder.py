"""The paper preset's weights: a folder with the published predictor; frames are coded by what ships.

    mcvd.safetensors     made by `gencodec weights import mcvd`; its configuration is inside

Frames are coded by the shipped `intra` and `s2vc`, whose symbols are exact, in place of ELIC's: scales from
float networks are not the same on another machine, and a stream would be lost there.
"""

from __future__ import annotations

from pathlib import Path

from gencodec.codec import Weights, WeightsMissing
from gencodec.methods.extreme.paper.mcvd import McvdConfig, McvdUNet
from gencodec.methods.extreme.paper.mcvd_predictor import McvdPredictor
from gencodec.methods.extreme.settings import CODED_BY, Options
from gencodec.nn.state import config_from
from gencodec.weights import file_digest, files_of, id_of, load_file

PREDICTOR = "mcvd.safetensors"
HELP = "docs/methods/extreme.md says how to make it"


def read_folder(path: str | Path | None) -> Weights:
    """What `load_predictor` and the coding loop build from. Raises WeightsMissing."""
    if path is None:
        raise WeightsMissing(f"the paper preset has no shipped weights: give a folder; {HELP}")
    own = Path(path) / PREDICTOR
    if not own.is_file():
        raise WeightsMissing(f"the paper preset lacks {own}; {HELP}")
    files = {"extreme": own} | {name.partition("-")[0]: files_of([name])[0] for name in CODED_BY}
    loaded = {role: load_file(file) for role, file in files.items()}
    tensors = {role: tensors for role, (tensors, _) in loaded.items()}
    metadata = {role: notes for role, (_, notes) in loaded.items()}
    return Weights("paper", tensors, metadata, id_of([file_digest(file) for file in files.values()]))


def load_predictor(weights: Weights, options: Options) -> McvdPredictor:
    """MCVD with the sampler of `options`. Raises ValueError for weights of another layout."""
    config = config_from(McvdConfig, weights.metadata["extreme"].get("config", "{}"))
    net = McvdUNet(config)
    try:
        net.load_state_dict({name: tensor.float() for name, tensor in weights.files["extreme"].items()})
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return McvdPredictor(net, options.steps, options.sampler, bool(options.quirks))
