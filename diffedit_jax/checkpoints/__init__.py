"""Weight files in and out, without torch and without running anything that a file holds."""
