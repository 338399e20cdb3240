-- Add to a counter in place; its times stay.
-- ARGV 8: how much   9: the stages that leave a number as its digits   10: CRC-32 of the key   11: now, in milliseconds
--      12: the head of what was seen to be current
-- Returns {1, the new frame, its milliseconds}; {0, frame, milliseconds} where that is no such counter, or its sum is
-- beyond what a double holds exactly; {'tagged', frame, milliseconds} where it carries tags that have to be seen to
-- first; nil where no valid frame is.
local found = read(KEYS[1])
if not is_valid(found, current_stamp()) then
  drop_unless_newer(found)
  return false
end
if struct.unpack('>I6', found, 11) <= tonumber(ARGV[11]) then return false end -- stale, so not there
local left = redis.call('PTTL', KEYS[1])
if not is_seen(found, ARGV[12]) then return {'tagged', found, left} end
local begins = struct.unpack('>I2', found, 23)
local names = string.sub(found, 36, 35 + string.byte(found, 26))
local digits = string.sub(found, begins + 1, -5)
if names ~= ARGV[9] or #digits > 15 or not string.match(digits, '^-?%d+$') then return {0, found, left} end
local sum = tonumber(digits) + tonumber(ARGV[8])
if math.abs(sum) > 999999999999999 then return {0, found, left} end
local counted = string.format('%.0f', sum)
-- of equal lengths the seed makes no difference
local seed = #counted == #digits and 0 or crc32(string.sub(found, 23, begins), tonumber(ARGV[10]))
local frame = string.sub(found, 1, begins) .. counted .. moved_check(found, digits, counted, seed)
redis.call('SET', KEYS[1], frame, 'KEEPTTL')
written()
return {1, frame, left}
