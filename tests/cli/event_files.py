"""A strict reader of TensorBoard's files of events: TFRecord, and the wire format of Protocol
Buffers. It knows the fields that char_lm writes, and raises for any other."""
import struct


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


assert crc32c(b"123456789") == 0xe3069283  # the check value of CRC-32C


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff


def records(path):
    content, at = path.read_bytes(), 0
    while at < len(content):
        head = content[at:at + 12]
        length, check = struct.unpack("<QI", head)
        assert check == masked(head[:8]), "checksum of a length"
        data = content[at + 12:at + 12 + length]
        check, = struct.unpack("<I", content[at + 12 + length:at + 16 + length])
        assert len(data) == length and check == masked(data), "checksum of a record"
        yield data
        at += 16 + length


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7f) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data, types):
    """The fields of a message as (number, value); `types` has the wire type of each number."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        assert types[number] == kind, (number, kind)
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            length, at = varint(data, at)
            value = data[at:at + length]
            assert len(value) == length
            at += length
        else:
            size, form = {1: (8, "<d"), 5: (4, "<f")}[kind]
            value, = struct.unpack(form, data[at:at + size])
            at += size
        yield number, value


def floats(data, form="f"):
    return [value for value, in struct.iter_unpack("<" + form, data)]


def histogram(data):
    names = {1: "min", 2: "max", 3: "num", 4: "sum", 5: "sum_squares", 6: "bucket_limit",
             7: "bucket"}
    return {names[number]: floats(value, "d") if number > 5 else value
            for number, value in fields(data, {**dict.fromkeys(range(1, 6), 1), 6: 2, 7: 2})}


def value_of(data):
    parts = dict(fields(data, {1: 2, 2: 5, 5: 2, 8: 2, 9: 2}))
    tag = parts.pop(1).decode()
    if 2 in parts:
        return tag, parts[2]
    if 5 in parts:
        return tag, histogram(parts[5])
    tensor = dict(fields(parts[8], {1: 0, 2: 2, 8: 2}))
    assert tensor[1] == 7, "not of strings"
    shape = dict(fields(dict(fields(tensor[2], {2: 2}))[2], {1: 0}))
    assert shape == {1: 1}
    plugin = dict(fields(dict(fields(parts[9], {1: 2}))[1], {1: 2}))
    return tag, {"plugin": plugin[1].decode(), "text": tensor[8].decode()}


def read(path):
    """The events of a file, in order."""
    events = []
    for record in records(path):
        event = {"step": 0, "values": {}}
        for number, value in fields(record, {1: 1, 2: 0, 3: 2, 5: 2, 7: 2}):
            if number == 1:
                event["wall_time"] = value
            elif number == 2:
                event["step"] = value
            elif number == 3:
                event["file_version"] = value.decode()
            elif number == 5:
                event["values"].update(value_of(part) for _, part in fields(value, {1: 2}))
            else:
                event["session"] = dict(fields(value, {1: 0}))[1]
        events.append(event)
    return events


def merged(files):
    """The values of several files, as a reader shows them that forgets at each start what is
    of its step or later; without speeds, which differ."""
    kept = []
    for events in files:
        for event in events:
            if event.get("session") == 1:
                kept = [other for other in kept if other[0] < event["step"]]
            kept += [(event["step"], tag, value) for tag, value in event["values"].items()
                     if not tag.endswith("chars_per_s")]
    return kept
