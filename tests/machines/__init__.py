"""Two machines with kernels of their own, and OpenZFS in them, under QEMU."""
