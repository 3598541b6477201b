"""The codecs, a folder each. Nothing here is imported until the registry asks for it."""
