-- Add to a counter in place; its times stay. ARGV 8: how much   9: the stages that leave a number as its digits
-- Returns {1, the new frame, its milliseconds}; {0, frame, milliseconds} where that is no such counter, or its sum is
-- beyond what a double holds exactly; nil where no valid frame is.
local NIBBLES = {
  0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
  0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
}

-- CRC-32 of `text`, going on from the four bytes of `seed`.
local function crc32(text, seed)
  local crc = bit.bnot(struct.unpack('>I4', seed))
  for i = 1, #text do
    crc = bit.bxor(crc, string.byte(text, i))
    crc = bit.bxor(NIBBLES[bit.band(crc, 15) + 1], bit.rshift(crc, 4))
    crc = bit.bxor(NIBBLES[bit.band(crc, 15) + 1], bit.rshift(crc, 4))
  end
  return struct.pack('>i4', bit.bnot(crc))
end

local found = read(KEYS[1])
if not is_valid(found, current_stamp()) then
  drop_unless_newer(found)
  return false
end
local left = redis.call('PTTL', KEYS[1])
local begins = struct.unpack('>I4', found, 33)
local names = string.sub(found, 49, 48 + string.byte(found, 38))
local head_check, digits = string.sub(found, begins - 3, begins), string.sub(found, begins + 1, -5)
if names ~= ARGV[9] or #digits > 15 or not string.match(digits, '^-?%d+$')
  or crc32(digits, head_check) ~= string.sub(found, -4) then
  return {0, found, left}
end
local sum = tonumber(digits) + tonumber(ARGV[8])
if math.abs(sum) > 999999999999999 then return {0, found, left} end
digits = string.format('%.0f', sum)
local frame = string.sub(found, 1, begins) .. digits .. crc32(digits, head_check)
redis.call('SET', KEYS[1], frame, 'KEEPTTL')
written()
return {1, frame, left}
