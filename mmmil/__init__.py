"""The package behind the executable book of a multimodal multiple instance learning paper.

Data flow one way: cohort -> tiles and genes -> model -> training -> predictions -> pages. Each module is named
after what the field would call it and is imported on its own; importing `mmmil` itself costs next to nothing.
"""

from mmmil import source_code as source_code  # first of all: it notes what every other module is when it is loaded

__version__ = "0.1.0"
