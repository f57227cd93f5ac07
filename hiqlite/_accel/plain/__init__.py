"""Plain-Python twins of the codecs: they define the meaning, and the same tests run over both."""
