-- Take the lease of a key, unless a fresh entry is there or somebody else has it.
-- ARGV 8: token   9: milliseconds of the lease   10: now, in milliseconds
--      11: the last four bytes of a frame that the caller has found to be of no use, or ''
-- Returns {'fresh' | 'granted' | 'busy', frame or nil, its milliseconds, the cache's stamp}
local current = current_stamp()
local found = read(KEYS[1])
if not is_valid(found, current) or string.sub(found, -4) == ARGV[11] then found = nil end
local left = found and redis.call('PTTL', KEYS[1]) or 0
if found and struct.unpack('>I6', found, 11) > tonumber(ARGV[10]) then return {'fresh', found, left, current} end
local holder = read(KEYS[2])
if holder and holder ~= ARGV[8] then return {'busy', found or false, left, current} end
redis.call('SET', KEYS[2], ARGV[8], 'PX', ARGV[9])
return {'granted', found or false, left, current}
