"""Frames made by hand, and who hears them."""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Self

BROADCAST = "ff:ff:ff:ff:ff:ff"


def ether(src: str, kind: int, payload: bytes, dst: str = BROADCAST) -> bytes:
    def raw(mac: str) -> bytes:
        return bytes.fromhex(mac.replace(":", ""))

    return raw(dst) + raw(src) + struct.pack("!H", kind) + payload


def udp(src: str, dst: str, sport: int = 5000, dport: int = 5000, text: bytes = b"hello") -> bytes:
    body = struct.pack("!HHHH", sport, dport, 8 + len(text), 0) + text
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0, IPv4Address(src).packed, IPv4Address(dst).packed
    )
    total = sum(struct.unpack("!10H", head))
    checksum = 0xFFFF - ((total & 0xFFFF) + (total >> 16))
    return head[:10] + struct.pack("!H", checksum) + head[12:] + body


def dhcp(mac: str, src: str = "0.0.0.0", dst: str = "255.255.255.255") -> bytes:
    """A client's request in the name of the card `mac`."""
    head = struct.pack("!BBBBIHH", 1, 1, 6, 0, 7, 0, 0) + b"\0" * 16
    return udp(src, dst, 68, 67, head + bytes.fromhex(mac.replace(":", "")) + b"\0" * 202 + b"\x63\x82\x53\x63\xff")


def udp6(src: str, dst: str, dport: int) -> bytes:
    text, ends = b"hello", IPv6Address(src).packed + IPv6Address(dst).packed
    length = 8 + len(text)
    body = struct.pack("!HHHH", 5000, dport, length, 0) + text
    summed = ends + struct.pack("!II", length, 17) + body + b"\0" * (len(body) % 2)
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:6] + struct.pack("!H", 0xFFFF - total) + body[8:]
    return struct.pack("!IHBB", 6 << 28, length, 17, 64) + ends + body


def arp(mac: str, src: str, dst: str) -> bytes:
    return struct.pack(
        "!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, bytes.fromhex(mac.replace(":", "")), IPv4Address(src).packed, b"\0" * 6,
        IPv4Address(dst).packed,
    )  # fmt: skip


class Ear:
    """Hears the frames that pass a link, before the host's own rules."""

    def __init__(self, link: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((link, 0))
        self._socket.settimeout(0.3)

    def hears(self, frame: bytes, *, outgoing: bool = False) -> bool:
        """Whether `frame` has come in by the link; with `outgoing`, gone out."""
        try:
            while True:
                heard, where = self._socket.recvfrom(2048)
                if heard.startswith(frame) and (where[2] == socket.PACKET_OUTGOING) == outgoing:
                    return True
        except TimeoutError:
            return False

    def hears_text(self, text: bytes) -> bool:
        """Whether `text` has gone out by the link, in whatever frame."""
        try:
            while True:
                heard, where = self._socket.recvfrom(2048)
                if text in heard and where[2] == socket.PACKET_OUTGOING:
                    return True
        except TimeoutError:
            return False

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
