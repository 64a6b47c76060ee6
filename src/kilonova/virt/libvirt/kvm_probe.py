"""Does KVM really run guest code here, and at full speed? Opening the device proves neither.

Some machines offer ``/dev/kvm`` and then interpret every instruction, or hang. So a loop of `LOOPS` iterations
in real mode is timed, in a process of its own with a time limit. Real virtualization needs about 1 ns an
iteration; interpretation hundreds. Numbers of the calls: Linux, include/uapi/linux/kvm.h.
"""

import ctypes
import fcntl
import json
import mmap
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

LOOPS = 10_000
FAST_NS = 50.0
LIMIT_S = 3.0

_CREATE_VM, _VCPU_MMAP_SIZE, _CREATE_VCPU = 0xAE01, 0xAE04, 0xAE41
_SET_MEMORY, _RUN = 0x4020AE46, 0xAE80
_SET_REGS, _GET_SREGS, _SET_SREGS = 0x4090AE82, 0x8138AE83, 0x4138AE84
_EXIT_HLT = 5
_BASE = 0x1000


def usable() -> tuple[bool, str]:
    """Whether to use KVM, and why, in a sentence."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False, "KVM is not used: /dev/kvm cannot be opened."
    flags = Path("/proc/cpuinfo").read_text()
    if " vmx" not in flags and " svm" not in flags:
        return False, "KVM is not used: the CPU shows neither vmx nor svm, so guests would be interpreted."
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__], capture_output=True, timeout=LIMIT_S, check=True, text=True
        )
        found = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        return False, f"KVM is not used: the trial guest did not run ({type(error).__name__})."
    if found["exit"] != _EXIT_HLT or found["ns"] >= FAST_NS:
        return False, f"KVM is not used: a trial guest took {found['ns']:.0f} ns an iteration (exit {found['exit']})."
    return True, f"KVM is used: a trial guest took {found['ns']:.1f} ns an iteration."


def measure() -> dict[str, float]:
    """Run the loop once: nanoseconds an iteration, and why the guest stopped."""
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    vm = fcntl.ioctl(kvm, _CREATE_VM, 0)
    memory = mmap.mmap(-1, 65536)
    # mov ecx, LOOPS; again: dec ecx; jnz again; hlt
    memory.write(b"\x66\xb9" + struct.pack("<I", LOOPS) + b"\x66\x49\x75\xfc\xf4")
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(vm, _SET_MEMORY, struct.pack("<IIQQQ", 0, 0, _BASE, 65536, address))
    vcpu = fcntl.ioctl(vm, _CREATE_VCPU, 0)
    state = mmap.mmap(vcpu, fcntl.ioctl(kvm, _VCPU_MMAP_SIZE, 0))
    sregs = bytearray(312)
    fcntl.ioctl(vcpu, _GET_SREGS, sregs)
    struct.pack_into("<Q", sregs, 0, 0)  # CS: base 0
    struct.pack_into("<H", sregs, 12, 0)  # and selector 0
    fcntl.ioctl(vcpu, _SET_SREGS, bytes(sregs))
    fcntl.ioctl(vcpu, _SET_REGS, struct.pack("<18Q", *([0] * 16), _BASE, 2))
    began = time.perf_counter()
    fcntl.ioctl(vcpu, _RUN, 0)
    spent = time.perf_counter() - began
    (reason,) = struct.unpack_from("<I", state, 8)
    return {"ns": spent / LOOPS * 1e9, "exit": reason}


if __name__ == "__main__":
    print(json.dumps(measure()))
