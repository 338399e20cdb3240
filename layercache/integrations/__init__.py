"""layercache in other people's frameworks: one module or small package for each, imported by who uses it."""
