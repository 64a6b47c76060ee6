"""Real guests by libvirt: QEMU, with KVM where it really works."""
