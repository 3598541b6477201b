"""The report's part on `diffsit` alone: frames by type, seams between clips, parts of the generator."""

from __future__ import annotations

from report_words import Result, provenance, table


def frames_detail(result: Result) -> str:
    """LPIPS-Alex of both types, with and without diffusion, what an MV frame costs, and flicker at seams."""
    rows = [
        [
            f"{row['quality']:.0f}",
            *(f"{row[name]['lpips'][kind]:.4f}" for name in ("stem", "shown") for kind in ("backbone", "mv")),
            f"{row['still']['lpips']['mv']:.4f}",
            f"{row['moved']['lpips']['mv']:.4f}",
            f"{100 * row['mv_over_backbone_bits']:.1f} %",
            *(f"{row['shown']['flicker'][place]:.2f}" for place in ("seams", "groups")),
        ]
        for row in result["means"]
    ]
    head = ["quality", "STEM, backbones", "STEM, MV", "shown, backbones", "shown, MV"]
    head += ["MV without motion", "MV of true backbones"]
    return "\n\n".join(
        [
            "## Frames of `diffsit` by type",
            f"LPIPS-Alex on the first {result['frames']} frames of {len(result['clips'])} held-out clips: as "
            "STEM has them, as they are shown, STEM's MV frames with their motion put to zero, and MV frames "
            "moved from the source's own backbones, which is what motion alone can give; then the bits of an "
            "MV frame over those of a backbone, and flicker in grey levels at the seams between clips and "
            "between triples within one.",
            table([*head, "bits, MV over backbone", "flicker at seams", "between triples"], rows),
            *steadiness(result),
            provenance(result),
        ]
    )


def steadiness(result: Result) -> list[str]:
    """Warping error within triples and between them; nothing of a result that has none."""
    kinds = {"STEM": "stem", "shown": "shown", "true backbones": "moved"}
    if "warping_of_source" not in result["means"][0]:
        return []
    rows = [
        [f"{row['quality']:.0f}"]
        + [
            f"{of[place]:.2f}"
            for of in [*(row[k]["warping"] for k in kinds.values()), row["warping_of_source"]]
            for place in ("within", "between")
        ]
        for row in result["means"]
    ]
    head = [f"{kind}, {place}" for kind in [*kinds, "source"] for place in ("within", "between")]
    return [
        "Warping error of neighbouring frames *within* a triple, which are one backbone, moved, and "
        "*between* triples: as STEM has them, as they are shown, of MV frames moved from the source's own "
        "backbones, and of the source.",
        table(["quality", *head], rows),
    ]


def training_detail(result: Result) -> str:
    """LPIPS-Alex of variants of the generator at equal rate, by type of frame, and its spread."""
    rows = [
        [name, quality]
        + [f"{found[kind]:.4f}" for kind in ("mean", "backbone", "mv")]
        + [f"{100 * (found['mv'] / found['backbone'] - 1):+.1f} %", f"{found['deviation']:.4f}"]
        for name, by_quality in result["variants"].items()
        for quality, found in by_quality.items()
    ]
    head = ["generator", "quality", "LPIPS-Alex", "backbones", "MV frames", "MV over backbones", "deviation"]
    return "\n\n".join(
        [
            "## What the parts of `diffsit`'s generator are worth",
            f"Each begins from what ships, without the part, and is trained for {result['steps']} steps, the "
            f"full one too; measured on {result['frames']} frames of {len(result['clips'])} held-out clips, "
            "the same decoded pictures at the same rate, with all of the repair shown. The deviation is over "
            "the frames of a clip.",
            table(head, rows),
            provenance(result),
        ]
    )
