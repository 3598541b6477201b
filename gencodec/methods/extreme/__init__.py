"""Autoregressive prediction by a video diffusion model, with key frames where it fails."""
