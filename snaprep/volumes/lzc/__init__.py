"""The parts of `libzfs_core`, OpenZFS's C library by ctypes."""
