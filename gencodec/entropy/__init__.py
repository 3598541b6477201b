"""Entropy coding over stored integer tables: ANS, the shared latent coder, small integers and events."""
