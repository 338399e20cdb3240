-- Take the lease of a key, unless an entry is there that is fresh enough or somebody else has it. It is the token and the
-- stamp of the cache, so a clear voids it.
-- ARGV 8: token   9: milliseconds of the lease   10: those that a fresh entry is fresh beyond
--      11: the last four bytes of a frame that the caller has found to be of no use, or ''
-- Returns {'fresh' | 'granted' | 'busy', frame or nil, its milliseconds, the cache's stamp}
local current = current_stamp()
local found = read(KEYS[1])
if not is_valid(found, current) or string.sub(found, -4) == ARGV[11] then found = nil end
local left = found and redis.call('PTTL', KEYS[1]) or 0
if found and struct.unpack('>I6', found, 11) > tonumber(ARGV[10]) then return {'fresh', found, left, current} end
local holder = read(KEYS[2])
-- that of no token holds back those who would be content with what there was, and nobody who wants it anew
if holder and #holder == 8 and ARGV[10] == '281474976710655' then holder = nil end
if holder and holder ~= ARGV[8] .. current and string.sub(holder, -8) == current then
  return {'busy', found or false, left, current}
end
redis.call('SET', KEYS[2], ARGV[8] .. current, 'PX', ARGV[9])
return {'granted', found or false, left, current}
