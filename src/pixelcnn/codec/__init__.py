"""The codec: frequencies, streams, and the bytes of lossless files. It knows nothing of models."""
