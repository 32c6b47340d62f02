"""findistill: turn large language models' reading of financial text into small models, and measure every step."""

__version__ = "0.1.0"
