-- Move the times of a frame in place.
-- ARGV 8: the times   9: milliseconds, 0 for ever   10: now, in milliseconds   11: the head of what was seen to be current
-- Returns what was there, nil when that is no valid frame; {'tagged', it, its milliseconds} where it carries tags that
-- have to be seen to first.
local found = read(KEYS[1])
if not is_valid(found, current_stamp()) then
  drop_unless_newer(found)
  return false
end
-- by the caller's clock it is stale or dead, and stays so
if struct.unpack('>I6', found, 11) <= tonumber(ARGV[10]) then return false end
if not is_seen(found, ARGV[11]) then return {'tagged', found, redis.call('PTTL', KEYS[1])} end
redis.call('SETRANGE', KEYS[1], #found - 4, moved_check(found, string.sub(found, 5, 22), ARGV[8], 0))
redis.call('SETRANGE', KEYS[1], 4, ARGV[8])
if ARGV[9] == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[9]) end
written()
return found
