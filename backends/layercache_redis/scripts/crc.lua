-- What stands before the scripts that change frames in place, after the prelude and `frames`.
local NIBBLES = {
  0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
  0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
}

-- CRC-32 of `text`, going on from `seed`.
local function crc32(text, seed)
  local crc = bit.bnot(seed)
  for i = 1, #text do
    crc = bit.bxor(crc, string.byte(text, i))
    crc = bit.bxor(NIBBLES[bit.band(crc, 15) + 1], bit.rshift(crc, 4))
    crc = bit.bxor(NIBBLES[bit.band(crc, 15) + 1], bit.rshift(crc, 4))
  end
  return bit.bnot(crc)
end

-- The check of `frame` once a part of it, seeded alike, has become another. What was altered before stays so.
local function moved_check(frame, before, after, seed)
  local check = struct.unpack('>I4', string.sub(frame, -4))
  return struct.pack('>i4', bit.bxor(check, crc32(before, seed), crc32(after, seed)))
end

-- Whether the tags of `frame` are known to be current: it has none, or its head is the one that the caller has `seen`.
local function is_seen(frame, seen)
  return string.byte(frame, 27) == 0 or string.sub(frame, 23, struct.unpack('>I2', frame, 23)) == seen
end
