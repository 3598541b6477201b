"""The report's part on `extreme` alone: its speed, how far its pixels drift, and candidates on digits."""

from __future__ import annotations

from report_words import Result, percent, provenance, table


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


def digits_detail(result: Result) -> str:
    """What more candidates save where chance decides."""
    alone = next(row["bytes"] for row in result["rows"] if row["candidates"] == 1)
    rows = [
        [
            str(row["candidates"]) if row["candidates"] else "the last frame repeated",
            f"{row['bytes']:.0f}",
            percent(100 * (row["bytes"] / alone - 1)),
            f"{row['lpips_alex']:.4f}",
            f"{100 * row['generated_share']:.0f} %",
            f"{row['coded_frames']:.1f}",
        ]
        for row in result["rows"]
    ]
    text = (
        f"Stochastic Moving MNIST: {result['clips']} clips of 30 frames of test digits, 64x64, at one "
        f"threshold (LPIPS-Alex {result['threshold']:g}) and key quality ({result['key_quality']}): what "
        "changes is how many frames must be coded. A predictor for these clips alone, trained for "
        f"{result['training_steps']} steps; {result['sampler_steps']} steps of the sampler. Means of a clip."
    )
    header = ["candidates", "bytes", "against one", "LPIPS-Alex", "predicted frames", "coded frames"]
    return "\n\n".join(
        ["## Candidates of `extreme` on digits", text, table(header, rows), provenance(result)]
    )
