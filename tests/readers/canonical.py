"""Rows as text that is the same whatever engine gave them: JSON with sorted keys, one text a row.

Floating-point numbers, decimals, dates and times are text in it, times with a zone end with Z, bytes are hexadecimal,
structs and maps are objects. Numbers, booleans, text and lists are themselves.
"""

import datetime
import decimal
import json
import uuid


def value(v):
    if isinstance(v, float):
        return repr(v)
    if isinstance(v, decimal.Decimal):
        return format(v, "f")
    if isinstance(v, datetime.datetime):
        zone = "Z" if v.tzinfo else ""
        return (v.astimezone(datetime.timezone.utc) if v.tzinfo else v).replace(tzinfo=None).isoformat(timespec="microseconds") + zone
    if isinstance(v, datetime.date):
        return v.isoformat()
    if isinstance(v, (bytes, bytearray, memoryview)):
        return bytes(v).hex()
    if isinstance(v, uuid.UUID):
        return str(v)
    if isinstance(v, dict):
        return {str(key): value(item) for key, item in v.items()}
    if isinstance(v, (list, tuple)):
        return [value(item) for item in v]
    if v is None or isinstance(v, (bool, int, str)):
        return v
    raise TypeError(f"no canonical form for {type(v).__name__}: {v!r}")


def rows(names, found):
    """Each row as its text."""
    names = [name.lower() for name in names]
    return [
        json.dumps({n: value(v) for n, v in zip(names, row, strict=True)}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        for row in found
    ]
