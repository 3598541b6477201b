"""Diffusion samplers as functions, schedules, denoiser conventions and counter-based noise."""
