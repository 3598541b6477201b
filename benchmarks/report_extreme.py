"""The report's part on `extreme` alone: its speed, and how far its pixels drift."""

from __future__ import annotations

from report_words import Result, provenance, table


def speed_detail(result: Result) -> str:
    """Seconds of a clip, by quality: the encoder's depend on how often it restarts."""
    found = result["results"]
    rows = [
        [str(row["quality"]), f"{row['bpp']:.4f}", f"{100 * row['generated_share']:.0f} %"]
        + [f"{row['seconds'][name]['median']:.1f}" for name in ("encode", "decode")]
        for row in found["qualities"]
    ]
    return "\n\n".join(
        [
            "## Speed of `extreme`",
            f"Seconds for {found['frames']} frames of 448x256 on {found['threads']} threads, "
            "loading left out.",
            table(["quality", "bpp", "predicted frames", "encode", "decode"], rows),
            provenance(result),
        ]
    )


def drift_detail(result: Result) -> str:
    """How far decodings in different ways lie apart."""
    last, most = (100 * result[name] for name in ("share_in_last_frame", "largest_share_of_bytes"))
    text = (
        f"Thirty generated frames behind one key frame, decoded in {len(result['ways'])} ways (threads, "
        "oneDNN, memory layout): symbols are equal; pixels differ by at most "
        f"{result['largest_difference']} grey levels and in at most {most:.4f} % of a frame's bytes, in the "
        f"last frame in {last:.4f} % on average, over {len(result['clips'])} held-out clips."
    )
    return "\n\n".join(["## Drift of `extreme`", text, provenance(result)])
