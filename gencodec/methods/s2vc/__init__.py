"""`s2vc`: conditional coding against a feature buffer, rendered by a one-step diffusion generator."""
