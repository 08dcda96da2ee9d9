"""Flags of the compiler for tests, which compile many small programs and run each a few times."""

from importlib.metadata import version

# A third of the compiler's time goes into optimising what hardly runs, and of the rest two fifths
# into its newer emitters of fusions. Numbers stay within every tolerance either way.
XLA = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):  # an unknown flag would end the process
    XLA += " --xla_cpu_use_fusion_emitters=false"
