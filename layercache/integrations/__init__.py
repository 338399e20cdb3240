"""What connects layercache with other packages: each its own module, which imports what it needs."""
