"""A U-Net's operations without its Python: traced once, cut to what a mask needs, and done again to the last bit."""

from memcontrol.tracing.traces import Traces

__all__ = ["Traces"]
