"""The report's part on `diffsit` alone: its frames by type, and the seams between its clips."""

from __future__ import annotations

from report_words import Result, provenance, table


def frames_detail(result: Result) -> str:
    """LPIPS-Alex of both types, with and without diffusion, what an MV frame costs, and flicker at seams."""
    rows = [
        [
            f"{row['quality']:.0f}",
            *(f"{row[name]['lpips'][kind]:.4f}" for name in ("stem", "shown") for kind in ("backbone", "mv")),
            f"{row['still']['lpips']['mv']:.4f}",
            f"{100 * row['mv_over_backbone_bits']:.1f} %",
            *(f"{row['shown']['flicker'][place]:.2f}" for place in ("seams", "groups")),
        ]
        for row in result["means"]
    ]
    head = ["quality", "STEM, backbones", "STEM, MV", "shown, backbones", "shown, MV", "MV without motion"]
    return "\n\n".join(
        [
            "## Frames of `diffsit` by type",
            f"LPIPS-Alex on the first {result['frames']} frames of {len(result['clips'])} held-out clips: as "
            "STEM has them, as they are shown, and STEM's MV frames with their motion put to zero; then the "
            "bits of an MV frame over those of a backbone, and flicker in grey levels at the seams between "
            "clips and between triples within one.",
            table([*head, "bits, MV over backbone", "flicker at seams", "between triples"], rows),
            provenance(result),
        ]
    )
