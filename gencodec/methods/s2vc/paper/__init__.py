"""`s2vc` at the paper's sizes: needs diffusers and peft, a folder of base models and codec parts of one's own.

Written from the paper (arXiv 2512.07480) and facts about sizes; MIT. Nothing here is imported by the tiny preset.
"""
