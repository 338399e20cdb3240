"""From values to bytes and back: pipelines of stages, and the frame that byte stores keep."""
