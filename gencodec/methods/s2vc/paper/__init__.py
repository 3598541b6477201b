"""`s2vc` at the paper's sizes: needs diffusers, peft, and a folder of base models and codec parts.

Written from the paper (arXiv 2512.07480) and facts about sizes; MIT. The tiny preset imports nothing of it.
"""
