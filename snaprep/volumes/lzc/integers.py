"""Integers of one C type each, under pyzfs's names: `uint32_t(7)` goes into an nvlist as a uint32."""

from __future__ import annotations

from snaprep.volumes.lzc.values import (
    Byte,
    HrTime,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    boolean_t,
)

__all__ = [
    "boolean_t",
    "hrtime_t",
    "int8_t",
    "int16_t",
    "int32_t",
    "int64_t",
    "uchar_t",
    "uint8_t",
    "uint16_t",
    "uint32_t",
    "uint64_t",
]

uint8_t, int8_t = UInt8, Int8
uint16_t, int16_t = UInt16, Int16
uint32_t, int32_t = UInt32, Int32
uint64_t, int64_t = UInt64, Int64
uchar_t, hrtime_t = Byte, HrTime
