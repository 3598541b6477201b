"""The empty prompt as Wan's text encoder has it, cached in a file, so that no decoder needs the encoder.

    "" ─► tokenizer: its end mark alone ─► umT5 ─► (1,4096), followed by 511 rows of zeros

The transformer was trained with rows of zeros behind the prompt's tokens, the last of which is an end mark:
zeros alone are something that it has never seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gencodec.codec import WeightsMissing
from gencodec.weights import load_file, save_whole

if TYPE_CHECKING:
    from torch import Tensor

FILE, NAME = "empty-prompt.safetensors", "embedding"
TOKENS = 512  # that Wan2.1 sees of a prompt
HOW = (
    f"{FILE} is what the text encoder of Wan2.1 makes of an empty prompt, for which zeros are no substitute: "
    "gencodec train diffsit --preset paper --stage prompt --base FOLDER makes it where FOLDER has "
    "text_encoder/ and tokenizer/ of the Wan2.1 repository"
)


def read_prompt(folder: Path) -> dict[str, Tensor]:
    """The file's one tensor (L,D). Raises WeightsMissing where it is absent, odd, or zeros."""
    if not (folder / FILE).is_file():
        raise WeightsMissing(f"there is no {folder / FILE}; {HOW}")
    tensors = load_file(folder / FILE)[0]
    if set(tensors) != {NAME} or tensors[NAME].ndim != 2:
        raise WeightsMissing(f"{folder / FILE} does not hold one tensor {NAME!r} of two axes; {HOW}")
    if not tensors[NAME].any() or not tensors[NAME].isfinite().all():
        raise WeightsMissing(f"{folder / FILE} holds zeros, or no numbers; {HOW}")
    return tensors


def write_prompt(folder: Path, *, tokens: int = TOKENS) -> None:
    """Make the file in a folder that has text_encoder/ and tokenizer/, as `transformers` saves them.

    Raises WeightsMissing where those or `transformers` are missing.
    """
    embedding = empty_prompt(folder, tokens=tokens)
    save_whole({NAME: embedding}, folder / FILE, {"prompt": "", "licence": "that of the text encoder"})


def empty_prompt(folder: Path, *, tokens: int = TOKENS) -> Tensor:
    """The embedding (tokens,D), float32."""
    import torch

    try:
        from transformers import AutoTokenizer, UMT5EncoderModel
    except ImportError as error:
        raise WeightsMissing(f"the text encoder needs transformers ({error}): pip install it") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
        encoder = UMT5EncoderModel.from_pretrained(
            str(folder / "text_encoder"), local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise WeightsMissing(f"cannot read the text encoder in {folder}: {reason}; {HOW}") from error
    words = tokenizer("", add_special_tokens=True, return_tensors="pt")
    with torch.inference_mode():
        seen = encoder.eval()(words.input_ids, words.attention_mask).last_hidden_state[0].float()
    embedding = torch.zeros(tokens, seen.shape[-1])
    embedding[: len(seen)] = seen[:tokens]
    return embedding
