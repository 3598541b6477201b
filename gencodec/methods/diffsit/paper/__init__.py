"""`diffsit` at the paper's sizes: needs diffusers, peft, and a folder with the parts of Wan2.1.

Written from facts about the paper (arXiv 2603.18501); MIT. The tiny preset imports nothing of it.
"""
